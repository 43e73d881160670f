// The gradients of weights, such as all of a stack: products over the rows of all steps, in two launches.
//
//     left.T @ [right0 | right1 | 1]      such as dZ.T @ [entered | X | 1] = [dw_hh | dw_xh | db]
//
// A block adds one tile of one product over one part of the rows, and the parts are added in order.
// Which rows belong to a part depends on T*N and on how many are counted. Padding is not among them.

constexpr int TILE = 64, DEPTH = 16, SPAN = 256;  // of results; rows in shared memory; threads
constexpr int SIDE = TILE / 16;                   // a thread's results are SIDE x SIDE
constexpr int COLLECT = 2 * DEPTH * TILE;
static_assert(4 * COLLECT == PLAN_COLLECT_BYTES && TILE == PLAN_TILE && SPAN == PLAN_SPAN, "plan.py");

struct Right {
  const float* first;
  const float* factors;  // as those of Rows
  float* product;        // [lefts][columns]
  long long of_step, of_row;
  int columns;           // 0 if there is none
};
struct Job {
  const float* left;  // [T][N][lefts], or [others][lefts]
  float* sums;        // of the columns of left from `skip` on; null if nobody asks
  Right right[2];
  int lefts, skip, others;    // others: rows that are not those of steps; 0 if they are
  int first_tile, first_part;  // of all jobs' tiles, and of the results in a part
};
struct JobTable {
  Job of[JOBS];
};
static_assert(sizeof(JobTable) == PLAN_JOB_TABLE, "plan.py");

__device__ __forceinline__ int width_of(const Job& job)
{
  return job.right[0].columns + job.right[1].columns + (job.sums != nullptr);
}

// Steps and numbers of rows that a thread asks for in rising order: those of a step follow each other,
// N of them, or with lengths as many as are counted.
struct Walk {
  const int* offsets;  // [T+1], or null
  int N, t, first, next;  // first and next: rows where steps t and t + 1 begin

  __device__ __forceinline__ void go_to(int r)
  {
    while (r >= next) {
      ++t;
      first = next;
      next = offsets ? offsets[t + 1] : first + N;
    }
  }
};

// A walk from row r on. Rows that are not those of steps are all in one.
__device__ __forceinline__ Walk walk_from(int r, const int* offsets, int T, int N, bool others)
{
  if (others) return Walk{nullptr, N, 0, 0, 0x7fffffff};
  if (!offsets) return Walk{nullptr, N, r / N, r / N * N, r / N * N + N};
  int low = 0, high = T;  // offsets[low] <= r, and r < offsets[high] if there is such a row
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (offsets[middle] <= r) low = middle;
    else high = middle;
  }
  return Walk{offsets, N, low, offsets[low], offsets[low + 1]};
}

// A column of the right side: where its rows are.
struct Column {
  const float *first, *factors;
  long long of_step, of_row;
  int columns;
  bool ones;

  __device__ __forceinline__ float at(int t, int n, long long row) const
  {
    if (ones) return 1.f;
    if (!first) return 0.f;
    const float value = first[t * of_step + n * of_row];
    return factors ? value * factors[row * columns] : value;
  }
};

__device__ __forceinline__ Column column_of(const Job& job, int j)
{
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const Right& right = job.right[k];
    if (j < right.columns)
      return Column{right.first + j, right.factors ? right.factors + j : nullptr, right.of_step, right.of_row,
                    right.columns, false};
    j -= right.columns;
  }
  return Column{nullptr, nullptr, 0, 0, 0, j == 0 && job.sums};
}

extern "C" __global__ void __launch_bounds__(SPAN)
collect(const __grid_constant__ JobTable table, int count, int parts, const int* offsets, int T, int N, float* partial,
        int entries)  // partial: [parts][entries]
{
  SHARED_MEMORY(shared);
  float *lefts = shared, *rights = lefts + DEPTH * TILE;  // [DEPTH][TILE] each
  const int part = blockIdx.x % parts, tile = blockIdx.x / parts, tid = threadIdx.x;
  int k = 0;
  while (k + 1 < count && tile >= table.of[k + 1].first_tile) ++k;
  const Job& job = table.of[k];
  const int width = width_of(job), across = up(width, TILE) / TILE, number = tile - job.first_tile;
  const int i0 = number / across * TILE, j0 = number % across * TILE;
  const int total = job.others ? job.others : offsets ? offsets[T] : T * N, share = (total + parts - 1) / parts;
  const int begin = part * share, end = total < begin + share ? total : begin + share;
  const int mine = tid % TILE, depth = tid / TILE;  // a thread always brings the same column
  const Column right = column_of(job, j0 + mine);
  const float* left = job.left + i0 + mine;
  const bool inside = i0 + mine < job.lefts;
  const int ty = tid / 16 * SIDE, tx = tid % 16 * SIDE;
  float sum[SIDE][SIDE] = {};
  Walk walk = walk_from(begin + depth, offsets, T, N, job.others > 0);
#pragma unroll 1
  for (int r0 = begin; r0 < end; r0 += DEPTH) {
    BARRIER(17);  // another thread may still read the rows before
#pragma unroll
    for (int d = depth; d < DEPTH; d += SPAN / TILE) {
      const int r = r0 + d;
      const bool there = r < end;
      if (there) walk.go_to(r);
      const int n = r - walk.first;
      const long long row = (long long)walk.t * N + n;
      lefts[d * TILE + mine] = there && inside ? left[row * job.lefts] : 0.f;
      rights[d * TILE + mine] = there ? right.at(walk.t, n, row) : 0.f;
    }
    BARRIER(18);
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) {
      float a[SIDE], b[SIDE];
      load4(a, lefts + d * TILE + ty);
      load4(b, rights + d * TILE + tx);
#pragma unroll
      for (int i = 0; i < SIDE; ++i)
#pragma unroll
        for (int j = 0; j < SIDE; ++j) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
    }
  }
  float* to = partial + (long long)part * entries + job.first_part;
#pragma unroll
  for (int i = 0; i < SIDE; ++i)
#pragma unroll
    for (int j = 0; j < SIDE; ++j)
      if (i0 + ty + i < job.lefts && j0 + tx + j < width)
        to[(long long)(i0 + ty + i) * width + j0 + tx + j] = sum[i][j];
}

// A thread for each entry.
extern "C" __global__ void __launch_bounds__(SPAN)
add_up(const __grid_constant__ JobTable table, int count, int parts, const float* partial, int entries)
{
  const int at = blockIdx.x * SPAN + threadIdx.x;
  if (at >= entries) return;
  float sum = 0.f;
#pragma unroll 4
  for (int part = 0; part < parts; ++part) sum += partial[(long long)part * entries + at];
  int k = 0;
  while (k + 1 < count && at >= table.of[k + 1].first_part) ++k;
  const Job& job = table.of[k];
  const int width = width_of(job), i = (at - job.first_part) / width;
  int j = (at - job.first_part) % width;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int columns = job.right[r].columns;
    if (0 <= j && j < columns) job.right[r].product[(long long)i * columns + j] = sum;
    j -= columns;
  }
  if (j == 0 && i >= job.skip) job.sums[i - job.skip] = sum;
}
