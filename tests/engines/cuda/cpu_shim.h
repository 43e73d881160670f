// Runs an unmodified CUDA kernel on the CPU: each thread of a block is a coroutine.
//
// __syncthreads() hands over to a scheduler that goes on when every thread of the block has arrived;
// a launch fails if some have left the kernel and others wait. Blocks run one after another. Between
// barriers threads run one at a time, in order of their index (seed 0) or in a shuffled order, so that
// a missing barrier shows as a wrong result. Shared memory is allocated anew for each block and filled
// with NaN, so that a read before the first write shows too, and a sanitizer sees overruns.
//
// The blocks of a cluster run in turns, from barrier to barrier, in a random order; at a barrier of the
// cluster they wait for each other. A launch fails if a block looks into the shared memory of another
// that has not begun or is over.
//
// Not modelled: warps, atomics, races between blocks on global memory, occupancy, flush-to-zero, and
// the GPU's own tanhf, expf and logf. Grids and blocks have one dimension.
#pragma once
#include <cmath>
#include <cstddef>

#define __global__
#define __host__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 { unsigned x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };

namespace sim {

extern dim3 thread_idx, block_idx, block_dim, grid_dim;
extern char* shared;

enum class At { block_barrier, cluster_barrier, end };

void wait(At at);
int cluster_rank();
float* cluster_map(float* own, int rank);

// Run kernel(arguments) in every thread; whether all threads of all blocks came to their end.
bool launch(unsigned blocks, unsigned threads, unsigned cluster, size_t shared_bytes, unsigned seed,
            void (*kernel)(void**), void** arguments);

}  // namespace sim

#define threadIdx sim::thread_idx
#define blockIdx sim::block_idx
#define blockDim sim::block_dim
#define gridDim sim::grid_dim
#define __syncthreads() sim::wait(sim::At::block_barrier)
#define CLUSTER_SYNC() sim::wait(sim::At::cluster_barrier)
#if CLUSTER > 1
#define CLUSTER_DIMS
using sim::cluster_map;
using sim::cluster_rank;
#endif
#define SHARED_MEMORY(name) float* name = reinterpret_cast<float*>(sim::shared)
