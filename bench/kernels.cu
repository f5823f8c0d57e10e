// The kernels that the measuring client times.

extern "C" __global__ void nothing() {}

extern "C" __global__ void take(char *) {}

extern "C" __global__ void stamp(volatile long long *when) {
    long long now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    *when = now;
}

// One multiplication after the other: a turn takes the soft GPU some nanoseconds.
extern "C" __global__ void slow(unsigned *out, unsigned turns) {
    unsigned value = turns;
    for (unsigned i = 0; i < turns; ++i) value = value * 1664525u + i;
    *out = value;
}

extern "C" __global__ void saxpy(float *out, const float *x, const float *y, float a, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = a * x[i] + y[i];
}

extern "C" __global__ void sum(float *out, const float *in, unsigned n) {
    float mine = 0;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) mine += in[i];
    for (int step = 16; step > 0; step /= 2) mine += __shfl_down_sync(0xffffffffu, mine, step);
    __shared__ float partial[32];
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x < 32) {
        mine = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
        for (int step = 16; step > 0; step /= 2) mine += __shfl_down_sync(0xffffffffu, mine, step);
        if (threadIdx.x == 0) atomicAdd(out, mine);
    }
}

extern "C" __global__ void matmul(float *c, const float *a, const float *b, unsigned n) {
    __shared__ float tile_a[16][16], tile_b[16][16];
    unsigned row = blockIdx.y * 16 + threadIdx.y, column = blockIdx.x * 16 + threadIdx.x;
    float total = 0;
    for (unsigned start = 0; start < n; start += 16) {
        tile_a[threadIdx.y][threadIdx.x] = a[row * n + start + threadIdx.x];
        tile_b[threadIdx.y][threadIdx.x] = b[(start + threadIdx.y) * n + column];
        __syncthreads();
        for (int k = 0; k < 16; ++k) total += tile_a[threadIdx.y][k] * tile_b[k][threadIdx.x];
        __syncthreads();
    }
    c[row * n + column] = total;
}
