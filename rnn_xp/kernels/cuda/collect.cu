// The gradients of all weights of a stack: products over the rows of all steps, in two launches.
//
//     left.T @ [right0 | right1 | 1]      such as dZ.T @ [entered | X | 1] = [dw_hh | dw_xh | db]
//
// A block adds one tile of one product over one part of the rows, and the parts are added in order.
// Which rows belong to a part depends on the number of rows alone. Padding is not among them.

constexpr int TILE = 64, DEPTH = 16, SPAN = 256;  // of results; rows in shared memory; threads, and rows found at once
constexpr int SIDE = TILE / 16;                   // a thread's results are SIDE x SIDE
constexpr int COLLECT = 2 * DEPTH * TILE + 2 * SPAN;
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

// Where the rows of a step begin among those that are computed: t N, or with lengths as counted.
struct Steps {
  const int* offsets;  // [T+1], or null
  int T, N;

  __device__ __forceinline__ int total() const { return offsets ? offsets[T] : T * N; }
  __device__ __forceinline__ int step(int r) const
  {
    if (!offsets) return r / N;
    int low = 0, high = T;  // offsets[low] <= r < offsets[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (offsets[middle] <= r) low = middle;
      else high = middle;
    }
    return low;
  }
  __device__ __forceinline__ int first(int t) const { return offsets ? offsets[t] : t * N; }
};

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
  int *steps = reinterpret_cast<int*>(rights + DEPTH * TILE), *numbers = steps + SPAN;  // [SPAN]: t and n of rows
  const Steps all{offsets, T, N};
  const int part = blockIdx.x % parts, tile = blockIdx.x / parts, tid = threadIdx.x;
  int k = 0;
  while (k + 1 < count && tile >= table.of[k + 1].first_tile) ++k;
  const Job& job = table.of[k];
  const int width = width_of(job), across = up(width, TILE) / TILE, number = tile - job.first_tile;
  const int i0 = number / across * TILE, j0 = number % across * TILE;
  const int total = job.others ? job.others : all.total(), share = (total + parts - 1) / parts;
  const int end = total < (part + 1) * share ? total : (part + 1) * share;
  const int mine = tid % TILE, depth = tid / TILE;  // a thread always brings the same column
  const Column right = column_of(job, j0 + mine);
  const float* left = job.left + i0 + mine;
  const bool inside = i0 + mine < job.lefts;
  const int ty = tid / 16 * SIDE, tx = tid % 16 * SIDE;
  float sum[SIDE][SIDE] = {};
#pragma unroll 1
  for (int r0 = part * share; r0 < end; r0 += SPAN) {
    if (const int r = r0 + tid; r < end) {
      steps[tid] = job.others ? 0 : all.step(r);
      numbers[tid] = job.others ? r : r - all.first(steps[tid]);
    }
#pragma unroll 1
    for (int r1 = 0; r1 < SPAN && r0 + r1 < end; r1 += DEPTH) {
      BARRIER(18);
#pragma unroll
      for (int d = depth; d < DEPTH; d += SPAN / TILE) {
        const bool there = r0 + r1 + d < end;
        const int t = there ? steps[r1 + d] : 0, n = there ? numbers[r1 + d] : 0;
        const long long row = (long long)t * N + n;
        lefts[d * TILE + mine] = there && inside ? left[row * job.lefts] : 0.f;
        rights[d * TILE + mine] = there ? right.at(t, n, row) : 0.f;
      }
      BARRIER(19);
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
