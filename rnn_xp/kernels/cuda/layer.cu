// One recurrent layer over all of its steps: sizes, loads and the recurrent product that both
// directions share. cells.cu, forward.cu and backward.cu follow in the same text, for nvcc, NVRTC
// (cupy.RawModule) and g++ over the shim of the tests. plan.py chooses the macros.
// norm.cu has what layer normalisation adds, if NORM is 1.
//
//     forward     Z = X @ w_xh.T of the block's own rows, then all steps
//     backward    all steps back, dZ over Z, then dX = dZ @ w_xh of the block's own rows
//     collect     for all layers at once   dw_xh = dZ.T @ X   dw_hh = dA.T @ entered   db = 1 @ dZ
//
// Arrays of all steps are [T][N][.], in the order of time, whichever way the layer reads. Rows are
// sorted by length, the longest first, and what lies beyond a length is neither read nor written but
// for the states, which are carried on. Both directions of a layer have their states side by side in
// [T+2][N][D*H]: step t's at t + 1, what enters forward at 0 and what enters backwards at T + 1. So
// the next layer reads both as one array.
//
// A block owns R rows and takes them through all steps; rows are independent, so no block waits for
// another. Above 128 units the weights are too many for a multiprocessor: CLUSTER blocks of a thread
// block cluster then own R rows together, each of them U units of every gate, and send what enters
// the products to each other's shared memory, in two buffers in turn.
//
// A block's weights stay on chip: a thread has the weights of two columns for a slice of the terms
// of the sum, HELD_TERMS of them in registers and the others in shared memory. The slices' sums meet
// in shared memory, where the owner of a row adds them in order: there are no atomics, and a row's
// bits depend on neither N nor R.

#if CLUSTER == 1
#define CLUSTER_DIMS
#define CLUSTER_BARRIER(n) BARRIER(n)
__device__ __forceinline__ int cluster_rank() { return 0; }
__device__ __forceinline__ float* cluster_map(float* own, int) { return own; }
#else
#define CLUSTER_BARRIER(n) do { if (DROP_BARRIER != (n)) CLUSTER_SYNC(); } while (0)
#ifndef CLUSTER_SYNC  // the shim has its own of these
#define CLUSTER_SYNC() asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory")
#define CLUSTER_DIMS __cluster_dims__(CLUSTER, 1, 1)
__device__ __forceinline__ int cluster_rank()
{
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// The address in the shared memory of another block of the cluster.
__device__ __forceinline__ float* cluster_map(float* own, int rank)
{
  unsigned long long address;
  asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(reinterpret_cast<unsigned long long>(own)), "r"(rank));
  return reinterpret_cast<float*>(address);
}
#endif
#endif

enum Cell { RNN_TANH, RNN_RELU, GRU, LSTM };

constexpr int H = HIDDEN, R = ROWS, C = CLUSTER;
constexpr int U = up(H, C) / C, BUFFERS = C > 1 ? 2 : 1;
constexpr int G = CELL == LSTM ? 4 : CELL == GRU ? 3 : 1;
constexpr int PAIRS = (U + 1) / 2, HP = 2 * PAIRS, THREADS = PAIRS * SLICES;
constexpr int TERMS = up(up(H, SLICES) / SLICES, 4), KP = TERMS * SLICES;  // of a slice, of all
constexpr int SHARED_TERMS = TERMS - HELD_TERMS;
constexpr int W_SHARED = SHARED_TERMS * G * 2 * THREADS;
constexpr int BIASES = CELL == GRU ? G + 1 : G;
constexpr int GAINS = NORM ? G : 0, PARTS = NORM ? up(PAIRS, 4) : 0;  // PARTS: of a row's sum over a block's columns
constexpr int CHUNK = 16;                                  // terms of a product that are in shared memory at once
__host__ __device__ constexpr int lines(int groups) { return groups == 1 ? 8 : 4; }  // rows of a thread in a product
__host__ __device__ constexpr int strip(int groups) { return CHUNK * (SLICES * lines(groups) + groups * HP); }
constexpr int SUMS = BIASES + 2 * G;  // of the gains and biases that a block adds over its rows, with NORM
constexpr int ROUNDS = NORM ? 2 * SLICES * C * PARTS : 0;  // these and DGAINS lie first in shared memory, see norm.cu
constexpr int DGAINS = NORM ? up(R * BIASES * HP, 4) : 0;
constexpr int FORWARD = ROUNDS + most(strip(G),
  W_SHARED + R * (BUFFERS * KP + C * PARTS) + SLICES * R * G * HP + (BIASES + GAINS) * HP);
constexpr int BACKWARD = ROUNDS + DGAINS + most(most(strip(1), NORM ? SLICES * 2 * G * HP : 0),
  W_SHARED + R * (BUFFERS * G * KP + C * PARTS) + SLICES * R * HP + (NORM ? BIASES * HP : 0));
static_assert(R <= SLICES && THREADS <= 1024, "plan.py");
static_assert(HELD_TERMS % 4 == 0 && 0 <= HELD_TERMS && HELD_TERMS <= TERMS, "plan.py");
static_assert(THREADS == PLAN_THREADS && 4 * FORWARD == PLAN_FORWARD_BYTES
              && 4 * BACKWARD == PLAN_BACKWARD_BYTES, "plan.py counts other sizes");

typedef float Pair[2];  // of a thread's two columns, of which it owns 2, 1 or in a cluster none

__device__ __forceinline__ void load2(Pair& to, const float* from)
{
  const float2 q = *reinterpret_cast<const float2*>(from);
  to[0] = q.x; to[1] = q.y;
}

__device__ __forceinline__ void store2(float* to, const Pair& from)
{
  *reinterpret_cast<float2*>(to) = float2{from[0], from[1]};
}

// How many of a pair's columns are there; in the last block of a cluster it may be none.
__device__ __forceinline__ int owned(int rank, int c0)
{
  if (C == 1) return H % 2 == 0 || c0 + 1 < H ? 2 : 1;
  const int columns = H - rank * U < U ? H - rank * U : U;
  return c0 + 1 < columns ? 2 : c0 < columns ? 1 : 0;
}

// Columns of a row of global memory, which has no padding.
__device__ __forceinline__ void read(Pair& to, const float* from, int own)
{
  to[0] = C == 1 || own > 0 ? from[0] : 0.f;
  to[1] = own > 1 ? from[1] : 0.f;
}

__device__ __forceinline__ void write(float* to, const Pair& from, int own)
{
  if (C == 1 || own > 0) to[0] = from[0];
  if (own > 1) to[1] = from[1];
}

// Write to the shared memory of every block of the cluster.
__device__ __forceinline__ void send(float* to, float value)
{
#pragma unroll
  for (int rank = 0; rank < C; ++rank) *cluster_map(to, rank) = value;
}

__device__ __forceinline__ void send(float* to, const Pair& from, int own)
{
  if (C == 1 || own > 0) send(to, from[0]);
  if (own > 1) send(to + 1, from[1]);
}

// What a layer is told of its rows; null where there is nothing to tell.
struct Course {
  const float* keep;   // [N][H] factors of what enters the product
  const bool* idle;    // [T][N] where a row skips the step
  const bool* reset;   // [T][N] where the state becomes zero before the step
  const int* lengths;  // [N], never rising
  int T, N, reverse, width;  // width: of a row of states, D*H

  __device__ __forceinline__ int time(int i) const { return reverse ? T - 1 - i : i; }
  __device__ __forceinline__ long long row(int t, int n) const { return (long long)t * N + n; }
  // Column j of a row of states before and after step t. An int is enough within a step, and spares a register.
  __device__ __forceinline__ long long state(int t, int n, int j) const
  {
    return (long long)t * N * width + (n * width + j);
  }
  __device__ __forceinline__ long long before(int t, int n, int j) const { return state(reverse ? t + 2 : t, n, j); }
  __device__ __forceinline__ long long after(int t, int n, int j) const { return state(t + 1, n, j); }
  __device__ __forceinline__ int length(int n) const { return n >= N ? 0 : lengths ? lengths[n] : T; }
  __device__ __forceinline__ bool begins(int t, int n) const { return reset && reset[row(t, n)]; }
  __device__ __forceinline__ bool skips(int t, int n) const { return idle && idle[row(t, n)]; }
};

// Rows by step and by number, such as a layer's inputs.
struct Rows {
  const float* first;
  const float* factors;  // [T][N][width], of dropout; null for ones
  long long of_step, of_row;
  int width;

  __device__ __forceinline__ float at(int t, int n, int k, int N) const
  {
    const float value = first[t * of_step + n * of_row + k];
    return factors ? value * factors[((long long)t * N + n) * width + k] : value;
  }
};

// A thread's share of the weights: term k of the slice, gate g, two columns.
struct Weights {
  Pair held[HELD_TERMS > 0 ? HELD_TERMS : 1][G];
  float* others;  // [SHARED_TERMS][G][THREADS][2], of which this thread alone reads its own

  // `weight(g, k, c)` is the weight of term k and of the thread's column c.
  template <typename Weight>
  __device__ __forceinline__ void load(float* shared, int k0, int own, Weight weight)
  {
    others = shared + 2 * threadIdx.x;
#pragma unroll
    for (int k = 0; k < HELD_TERMS; ++k)
#pragma unroll
      for (int g = 0; g < G; ++g)
#pragma unroll
        for (int c = 0; c < 2; ++c)
          held[k][g][c] = k0 + k < H && c < own ? weight(g, k0 + k, c) : 0.f;
#pragma unroll 1
    for (int k = HELD_TERMS; k < TERMS; ++k)
#pragma unroll
      for (int g = 0; g < G; ++g)
#pragma unroll
        for (int c = 0; c < 2; ++c)
          others[((k - HELD_TERMS) * G + g) * 2 * THREADS + c]
            = k0 + k < H && c < own ? weight(g, k0 + k, c) : 0.f;
  }

  __device__ __forceinline__ void other(Pair& to, int k, int g) const
  {
    load2(to, others + ((k - HELD_TERMS) * G + g) * 2 * THREADS);
  }
};

// to (2) = sum of the slices' sums, in order
__device__ __forceinline__ void add_slices(Pair& to, const float* sums, int apart)
{
  to[0] = to[1] = 0.f;
#pragma unroll
  for (int s = 0; s < SLICES; ++s) {
    Pair of_slice;
    load2(of_slice, sums + s * apart);
    to[0] += of_slice[0];
    to[1] += of_slice[1];
  }
}
