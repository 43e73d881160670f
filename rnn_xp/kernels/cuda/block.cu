// What every source of this package begins with: shared memory, the barrier of a block, and sizes.

#ifndef SHARED_MEMORY  // the shim has its own
#define SHARED_MEMORY(name) extern __shared__ __align__(16) float name[]
#endif
#ifndef DROP_BARRIER  // a build without the n-th barrier, which the tests must notice
#define DROP_BARRIER 0
#endif
#define BARRIER(n) do { if (DROP_BARRIER != (n)) __syncthreads(); } while (0)

__host__ __device__ constexpr int up(int n, int to) { return (n + to - 1) / to * to; }
__host__ __device__ constexpr int most(int a, int b) { return a > b ? a : b; }

__device__ __forceinline__ void load4(float (&to)[4], const float* from)
{
  const float4 q = *reinterpret_cast<const float4*>(from);
  to[0] = q.x; to[1] = q.y; to[2] = q.z; to[3] = q.w;
}
