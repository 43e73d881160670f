// What every source of this package begins with: shared memory and the barrier of a block.

#ifndef SHARED_MEMORY  // the shim has its own
#define SHARED_MEMORY(name) extern __shared__ __align__(16) float name[]
#endif
#ifndef DROP_BARRIER  // a build without the n-th barrier, which the tests must notice
#define DROP_BARRIER 0
#endif
#define BARRIER(n) do { if (DROP_BARRIER != (n)) __syncthreads(); } while (0)
