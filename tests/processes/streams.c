// What a program finds where its standard streams should be: `streams FILE`.
#include "driver.h"

int main(int count, char **arguments) {
    (void)count;
    char found[64] = "";
    for (int stream = 0; stream < 3; ++stream) {
        strcat(found, fcntl(stream, F_GETFD) < 0 ? "closed " : "open ");
    }
    Device device = start();
    // A program without streams prints as others do.
    for (int round = 0; round < 3; ++round) {
        (void)!write(1, "printed\n", 8);
        (void)!write(2, "printed\n", 8);
        work(&device, 5000, 2);
    }
    FILE *file = fopen(arguments[1], "w");
    if (!file) return 6;
    fprintf(file, "%sok\n", found);
    return fclose(file);
}
