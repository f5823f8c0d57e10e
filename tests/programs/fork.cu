// A child of a process that has used CUDA: what it calls fails with the initialisation error, its end is
// silent, and its parent notices nothing of it. A child that executes another program may use CUDA there.
#include "expect.h"

#include <sys/wait.h>
#include <unistd.h>

__global__ void add(int *data, int term) { data[threadIdx.x] += term; }

struct Owner {
    int *data = nullptr;
    ~Owner() { cudaFree(data); } // in the child too, after main
};

static Owner owner;

static bool works(int term) {
    int host[32] = {};
    MUST(cudaMemcpy(owner.data, host, sizeof host, cudaMemcpyHostToDevice));
    add<<<1, 32>>>(owner.data, term);
    MUST(cudaMemcpy(host, owner.data, sizeof host, cudaMemcpyDeviceToHost));
    return host[0] == term && host[31] == term;
}

static int in_child() {
    const cudaError_t refused = cudaErrorInitializationError;
    int host[32], number = 0;
    size_t free_bytes, total_bytes;
    void *memory;
    cudaStream_t stream;
    expect_error("cudaSetDevice", refused, cudaSetDevice(0));
    expect_error("cudaMalloc", refused, cudaMalloc(&memory, 64));
    expect_error("cudaMemcpy", refused,
                 cudaMemcpy(host, owner.data, sizeof host, cudaMemcpyDeviceToHost));
    add<<<1, 32>>>(owner.data, 1);
    expect_error("launch", refused, cudaGetLastError());
    expect_error("cudaDeviceSynchronize", refused, cudaDeviceSynchronize());
    expect_error("cudaStreamCreate", refused, cudaStreamCreate(&stream));
    expect_error("cudaMemGetInfo", refused, cudaMemGetInfo(&free_bytes, &total_bytes));
    expect_error("cudaDriverGetVersion", cudaSuccess, cudaDriverGetVersion(&number));
    expect("there is a driver", number >= 12000);
    return wrong_count();
}

static int status_of(pid_t child) {
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

int main(int count, char **arguments) {
    MUST(cudaMalloc(&owner.data, 32 * sizeof(int)));
    expect("it works", works(3));
    fflush(stdout);
    if (count > 1) return wrong_count();
    pid_t child = fork();
    if (child == 0) return in_child();
    expect_equal("the child's status", 0, status_of(child));
    expect("it works after a child", works(4));
    fflush(stdout);
    child = fork();
    if (child == 0) {
        execl(arguments[0], arguments[0], "again", nullptr);
        _exit(1);
    }
    bool meanwhile = works(5);
    expect_equal("the other program's status", 0, status_of(child));
    expect("it worked meanwhile", meanwhile);
    return wrong_count();
}
