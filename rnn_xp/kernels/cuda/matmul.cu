// The product of two matrices with any strides, in one launch.
//
//     out (rows, columns) = left (rows, terms) @ right (terms, columns)
//
// A block has a tile of the result, TALL x WIDE, and a thread of it every 16th row and column. Both
// sides come to shared memory in chunks of terms; while one is multiplied, the next is on its way.
// The terms of an entry are added one after another, so that its bits depend on nothing else: not
// on the other rows, nor on the tile that plan.py chooses.

constexpr int THREADS = 256, ACROSS = 16;
constexpr int DEPTH = 1024 / most(TALL, WIDE), PITCH = DEPTH + 4;  // of a chunk; no two threads meet in a bank
static_assert(THREADS == PLAN_THREADS && 4 * (TALL + WIDE) * PITCH == PLAN_BYTES, "plan.py");

// One of the matrices: its entries are rows of the left one, columns of the right one.
struct Side {
  const float* first;
  long long of_entry, of_term;
  int entries, terms;

  __device__ __forceinline__ float at(int entry, int k) const
  {
    return entry < entries && k < terms ? first[entry * of_entry + k * of_term] : 0.f;
  }
};

// A thread's part of COUNT entries in a chunk. Neighbours in memory are read by neighbours.
template <int COUNT>
struct Part {
  float numbers[COUNT * DEPTH / THREADS];

  __device__ __forceinline__ void read(const Side& side, int entry, int k)
  {
    const bool by_term = side.of_term == 1;
#pragma unroll
    for (int n = 0; n < COUNT * DEPTH / THREADS; ++n) {
      const int i = n * THREADS + threadIdx.x;
      numbers[n] = by_term ? side.at(entry + i / DEPTH, k + i % DEPTH) : side.at(entry + i % COUNT, k + i / COUNT);
    }
  }

  __device__ __forceinline__ void write(const Side& side, float* to) const
  {
    const bool by_term = side.of_term == 1;
#pragma unroll
    for (int n = 0; n < COUNT * DEPTH / THREADS; ++n) {
      const int i = n * THREADS + threadIdx.x;
      to[by_term ? i / DEPTH * PITCH + i % DEPTH : i % COUNT * PITCH + i / COUNT] = numbers[n];
    }
  }
};

extern "C" __global__ void __launch_bounds__(THREADS)
product_tiles(const float* left, const float* right, float* out, int rows, int columns, int terms,
              long long left_row, long long left_term, long long right_term, long long right_column)
{
  SHARED_MEMORY(shared);
  float *lefts = shared, *rights = shared + TALL * PITCH;  // [TALL][PITCH], [WIDE][PITCH]
  const int across = up(columns, WIDE) / WIDE, ty = threadIdx.x / ACROSS, tx = threadIdx.x % ACROSS;
  const int i0 = blockIdx.x / across * TALL, j0 = blockIdx.x % across * WIDE;
  const Side side{left, left_row, left_term, rows, terms}, other{right, right_column, right_term, columns, terms};
  Part<TALL> of_left;
  Part<WIDE> of_right;
  float sum[TALL / ACROSS][WIDE / ACROSS] = {};
  of_left.read(side, i0, 0);
  of_right.read(other, j0, 0);
#pragma unroll 1
  for (int k0 = 0; k0 < terms; k0 += DEPTH) {
    BARRIER(19);  // another thread may still read the chunk before
    of_left.write(side, lefts);
    of_right.write(other, rights);
    BARRIER(20);
    of_left.read(side, i0, k0 + DEPTH);
    of_right.read(other, j0, k0 + DEPTH);
#pragma unroll
    for (int k = 0; k < DEPTH; k += 4) {
      float a[TALL / ACROSS][4], b[WIDE / ACROSS][4];
#pragma unroll
      for (int i = 0; i < TALL / ACROSS; ++i) load4(a[i], lefts + (i * ACROSS + ty) * PITCH + k);
#pragma unroll
      for (int j = 0; j < WIDE / ACROSS; ++j) load4(b[j], rights + (j * ACROSS + tx) * PITCH + k);
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int i = 0; i < TALL / ACROSS; ++i)
#pragma unroll
          for (int j = 0; j < WIDE / ACROSS; ++j) sum[i][j] = fmaf(a[i][e], b[j][e], sum[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < TALL / ACROSS; ++i)
#pragma unroll
    for (int j = 0; j < WIDE / ACROSS; ++j)
      if (const int m = i0 + i * ACROSS + ty, n = j0 + j * ACROSS + tx; m < rows && n < columns)
        out[(long long)m * columns + n] = sum[i][j];
}
