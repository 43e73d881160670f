// Products of a block's own rows with matrices that all blocks share: of the inputs before the steps
// forward, and of what reaches them after the steps back.
//
//     result (rows, GROUPS, HP) = left (rows, terms) @ right (terms, GROUPS, HP)
//
// A thread has two columns of every group, of lines(GROUPS) rows at a time. Both sides come to shared
// memory in chunks of terms. A row's terms are added in order, so that its bits depend on nothing else.
template <int GROUPS, typename Left, typename Right, typename Store>
__device__ __forceinline__ void product(float* shared, int rows, int terms, Left left, Right right, Store store)
{
  constexpr int LINES = lines(GROUPS), TILE = SLICES * LINES, WIDTH = GROUPS * HP;
  const int tid = threadIdx.x, c0 = tid % PAIRS * 2, slice = tid / PAIRS;
  float *lefts = shared, *rights = shared + TILE * CHUNK;
#pragma unroll 1
  for (int m0 = 0; m0 < rows; m0 += TILE) {
    float sum[LINES][GROUPS][2] = {};
#pragma unroll 1
    for (int k0 = 0; k0 < terms; k0 += CHUNK) {
      BARRIER(13);  // another thread may still read the chunk before
#pragma unroll 1
      for (int i = tid; i < TILE * CHUNK; i += THREADS) {
        const int m = m0 + i / CHUNK, k = k0 + i % CHUNK;
        lefts[i] = m < rows && k < terms ? left(m, k) : 0.f;
      }
#pragma unroll 1
      for (int i = tid; i < WIDTH; i += THREADS)
#pragma unroll 8
        for (int k = 0; k < CHUNK; ++k)
          rights[k * WIDTH + i] = k0 + k < terms ? right(k0 + k, i / HP, i % HP) : 0.f;
      BARRIER(14);
      const int count = terms - k0 < CHUNK ? up(terms - k0, 4) : CHUNK;
#pragma unroll 1
      for (int k = 0; k < count; k += 4) {
        float row[LINES][4];
#pragma unroll
        for (int r = 0; r < LINES; ++r) load4(row[r], lefts + (slice * LINES + r) * CHUNK + k);
#pragma unroll
        for (int e = 0; e < 4; ++e)
#pragma unroll
          for (int g = 0; g < GROUPS; ++g) {
            Pair column;
            load2(column, rights + (k + e) * WIDTH + g * HP + c0);
#pragma unroll
            for (int r = 0; r < LINES; ++r)
#pragma unroll
              for (int c = 0; c < 2; ++c) sum[r][g][c] = fmaf(row[r][e], column[c], sum[r][g][c]);
          }
      }
    }
#pragma unroll
    for (int r = 0; r < LINES; ++r)
      if (const int m = m0 + slice * LINES + r; m < rows)
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) store(m, g, sum[r][g]);
  }
}

// The rows of a block in all steps that one of them computes are numbered step by step.
__device__ __forceinline__ int step_of(int m) { return m / R; }
__device__ __forceinline__ int row_of(int m, int row0) { return row0 + m % R; }

// products (T, N, G*H) = x @ w_xh.T, the block's own columns
__device__ __forceinline__ void project(float* shared, const Course& course, const Rows& x, const float* w_xh,
                                        float* products, int rank, int own)
{
  const int j0 = rank * U + threadIdx.x % PAIRS * 2;
  for (int row0 = blockIdx.x / C * R; row0 < course.N; row0 += gridDim.x / C * R) {
    const auto inside = [&](int m) { return step_of(m) < course.length(row_of(m, row0)); };
    product<G>(
      shared, course.length(row0) * R, x.width,
      [&](int m, int k) { return inside(m) ? x.at(step_of(m), row_of(m, row0), k, course.N) : 0.f; },
      [&](int k, int g, int c) {
        const int j = rank * U + c;
        return c < U && j < H ? w_xh[(long long)(g * H + j) * x.width + k] : 0.f;
      },
      [&](int m, int g, const Pair& sum) {
        if (inside(m)) write(products + course.row(step_of(m), row_of(m, row0)) * G * H + g * H + j0, sum, own);
      });
  }
}
