// The two-loop recursion of L-BFGS in one launch of one block, see rnn_xp/optim/quasi_newton.py. A
// thread has every THREADS-th entry of all vectors, so that no other reads its entries of q; sums of
// the threads meet in shared memory and are added in order.

constexpr int THREADS = 512, GROUP = 32, GROUPS = THREADS / GROUP;

__device__ __forceinline__ float dot(const float* a, const float* b, int size, float* parts)
{
  const int tid = threadIdx.x;
  float own = 0.f, sum = 0.f;
  for (int i = tid; i < size; i += THREADS) own = fmaf(a[i], b[i], own);
  parts[tid] = own;
  BARRIER(1);
  if (tid < GROUPS) {
    float of_group = 0.f;
    for (int k = 0; k < GROUP; ++k) of_group += parts[k * GROUPS + tid];
    parts[THREADS + tid] = of_group;
  }
  BARRIER(2);
  for (int k = 0; k < GROUPS; ++k) sum += parts[THREADS + k];
  return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
two_loop(const float* gradient,                       // [size]
         const float* steps, const float* changes,    // [pairs][size], oldest first
         float* q,                                    // [size]: -H g
         int pairs, int size)
{
  SHARED_MEMORY(parts);  // [THREADS + GROUPS], then [pairs] of each of these, which all threads write alike
  float *alphas = parts + THREADS + GROUPS, *curvatures = alphas + pairs;
  for (int i = threadIdx.x; i < size; i += THREADS) q[i] = -gradient[i];
  for (int k = pairs - 1; k >= 0; --k) {
    const float *s = steps + (long long)k * size, *y = changes + (long long)k * size;
    const float curvature = dot(s, y, size, parts), alpha = dot(s, q, size, parts) / curvature;
    alphas[k] = alpha;
    curvatures[k] = curvature;
    for (int i = threadIdx.x; i < size; i += THREADS) q[i] = fmaf(-alpha, y[i], q[i]);
  }
  if (pairs > 0) {
    const float* y = changes + (long long)(pairs - 1) * size;
    const float scale = curvatures[pairs - 1] / dot(y, y, size, parts);
    for (int i = threadIdx.x; i < size; i += THREADS) q[i] *= scale;
  }
  for (int k = 0; k < pairs; ++k) {
    const float *s = steps + (long long)k * size, *y = changes + (long long)k * size;
    const float by = alphas[k] - dot(y, q, size, parts) / curvatures[k];
    for (int i = threadIdx.x; i < size; i += THREADS) q[i] = fmaf(by, s[i], q[i]);
  }
}
