// What the two halves of this program know of each other.
#pragma once

struct Particle {
    float position[3];
    float mass;
};

extern __device__ int calls;
extern __constant__ float factors[4];
__device__ float weigh(const Particle &particle);
