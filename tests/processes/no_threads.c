// A preloaded library that makes a process one that may start no more threads, as at its limit
// (RLIMIT_NPROC does not hold for root).
#include <errno.h>
#include <pthread.h>

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
    (void)thread, (void)attributes, (void)start, (void)argument;
    return EAGAIN;
}
