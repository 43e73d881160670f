// A whole training step of a small recurrent network: forward, loss and backpropagation through time
// in one launch, the optimiser or the gradient that it asks for in a second. One source for nvcc,
// NVRTC (cupy.RawModule) and g++, which compiles it over tests/cuda/cpu_shim.h. plan.py chooses the
// macros and says what is supported.
//
// Parameters are one matrix M (J, K), row-major, so that the network is two products and the
// gradient a third. With A_t what enters step t, and D_t what comes back:
//
//     A_t = [h_{t-1} | x_t  | 1  ]          K = H + I + 1 columns
//     M   = [ w_hh   | w_xh | b_h]          G*H rows, the gates of rnn_xp/cells
//           [ w_hy   | 0    | b_y]          O rows, the readout
//
//     Forward                               Backward
//     z_t     = A_t @ M[gates].T            dh_{t-1} = D_t @ M[:, :H]        D_t = [dz_t | dy_{t-1}]
//     h_t     = cell(z_t, h_{t-1})          dz_t     = cell_back(dh_t)
//     y_{t-1} = A_t @ M[readout].T          dM       = sum_t D_t.T @ A_t     t = T..0
//
// h_{-1} = 0, dz_T = 0 and dy_{-1} = 0 make the ends fit. The GRU has four gates here, r, z, n, q:
// of q = h @ w_hn.T + b_hn and n = x @ w_xn.T + b_n each has a part of A that it does not use, where M
// stays zero (`is_parameter`).
//
// A block owns R rows (samples) and takes them through all steps: rows are independent, so no block
// waits for another. A thread owns two columns of h in some rows, and for these all gates, so that
// the cell itself needs no exchange. Each block leaves one row of partial sums; the optimiser adds
// these in a fixed order. There are no atomics, and the bits repeat.
//
// A block of few rows is SLICED: were a weight read for one row at a time, reading would take longer
// than computing. So a thread takes its two columns in all rows, for a slice of the terms of the
// sum; the slices' sums meet in shared memory, where the owner of a row adds them in order. The two
// steps of A that are in use lie there too, and as many of the weights as there is room for.

#ifndef SHARED_MEMORY  // the shim has its own
#define SHARED_MEMORY(name) extern __shared__ __align__(16) float name[]
#endif
#ifndef DROP_BARRIER  // a build without the n-th barrier, which the tests must notice
#define DROP_BARRIER 0
#endif
#define BARRIER(n) do { if (DROP_BARRIER != (n)) __syncthreads(); } while (0)

enum Cell { RNN_TANH, RNN_RELU, GRU, LSTM };
#if CROSS_ENTROPY
typedef int Target;
#else
typedef float Target;
#endif

constexpr int up(int n, int to) { return (n + to - 1) / to * to; }
constexpr int least(int a, int b) { return a < b ? a : b; }
constexpr int most(int a, int b) { return a > b ? a : b; }

// ---- sizes; a P marks a size padded to a multiple of 4, so that float4 loads are aligned ----
constexpr int H = HIDDEN, I = INPUTS, O = OUTPUTS, T = STEPS, R = ROWS;
constexpr int G = CELL == GRU || CELL == LSTM ? 4 : 1;
constexpr int KEPT = CELL == GRU ? 4 : CELL == LSTM ? 5 : 0;  // what a step keeps: r z n q, i f g o c
constexpr int J = G * H + O, K = H + I + 1;
constexpr int HP = up(H, 4), OP = up(O, 4), KP = up(K, 4), GP = G * HP, JP = GP + OP;

// ---- threads of the products: CG pairs of columns, RG groups of rows, RT rows at a time ----
constexpr bool SLICED = R <= 4;
constexpr int SLICES = SLICED ? ROW_GROUPS : 1, STEP = 4 * SLICES;  // a slice has 4 terms in each STEP
constexpr int CG = (H + 1) / 2, RG = least(ROW_GROUPS, R), THREADS = CG * ROW_GROUPS;
constexpr int RPT = R / RG, RT = least(RPT, G == 1 ? 8 : 4);
static_assert(R % RG == 0 && RPT % RT == 0 && THREADS >= R && THREADS <= 1024, "plan.py");
static_assert(SLICED ? RPT == 1 : ROW_GROUPS <= R, "plan.py");

// ---- threads of dM: tiles of 8 x 8, as two chunks of 4 in either direction ----
constexpr int JT = (JP / 4 + 1) / 2, KT = (KP / 4 + 1) / 2, TILES = JT * KT;
constexpr int PASSES = (TILES + THREADS - 1) / THREADS;
// Rows are shared out to these.
constexpr int GROUPS = PASSES > 1 ? 1 : least(THREADS / TILES, least(R, 8));
constexpr int AT_ONCE = PASSES > 1 ? THREADS : TILES;
constexpr bool COLLECT_AFTER = PASSES > 1;  // then every D_t is kept until all are known

// ---- memory, in floats ----
constexpr int WEIGHTS = KP * GP + JP * HP + O * KP;  // forward (KP, GP) | backward (JP, HP) | readout (O, KP)
constexpr int A_STEP = R * KP, D_STEP = R * JP, KEPT_STEP = R * KEPT * HP;
constexpr int A_SHARED = SLICED ? 2 * A_STEP : HISTORY_SHARED ? (T + 1) * A_STEP : 0;
constexpr int D_SHARED = SLICED || !COLLECT_AFTER ? D_STEP : 0;
constexpr int SUMS_SHARED = SLICED ? SLICES * R * (GP + OP) : 0;  // of the slices: z or dh | y
constexpr int USED = A_SHARED + D_SHARED + SUMS_SHARED;
constexpr int REDUCE = 64 * THREADS + R;  // takes the place of these at the end
// Of a sliced block, the place of the weights too: it has no further rows.
constexpr int W_SHARED = SLICED || !WEIGHTS_SHARED ? WEIGHTS_SHARED : WEIGHTS;
constexpr int SHARED = SLICED ? most(W_SHARED + USED, REDUCE) : W_SHARED + most(USED, REDUCE);
// How many columns of A, or of D, have their weights in shared memory.
constexpr int HELD_A = SLICED ? least(KP, W_SHARED / GP / 4 * 4) : KP;
constexpr int HELD_D = SLICED ? least(JP, W_SHARED / HP / 4 * 4) : JP;
constexpr long long A_GLOBAL = HISTORY_SHARED ? 0 : (T + 1LL) * A_STEP;
constexpr long long D_GLOBAL = COLLECT_AFTER ? (T + 1LL) * D_STEP : 0;
constexpr long long WORKSPACE = A_GLOBAL + D_GLOBAL + (long long)T * KEPT_STEP;
constexpr int PARTIAL = J * K + 1;  // a row of partial sums: dM, then the loss
static_assert((T + 1LL) * A_STEP < 1LL << 31, "T is too large for an int to count the history");
static_assert(!(COLLECT_AFTER && HISTORY_SHARED), "the first pass of dM would destroy the history");
static_assert(!(SLICED && HISTORY_SHARED), "plan.py");
static_assert(4LL * SHARED == PLAN_SHARED_BYTES, "plan.py counts other bytes of shared memory");
static_assert(WEIGHTS == PLAN_WEIGHTS && PARTIAL == PLAN_PARTIAL && WORKSPACE == PLAN_WORKSPACE
              && THREADS == PLAN_THREADS, "plan.py counts other sizes");

__device__ __forceinline__ void load4(float (&to)[4], const float* from)
{
  const float4 q = *reinterpret_cast<const float4*>(from);
  to[0] = q.x; to[1] = q.y; to[2] = q.z; to[3] = q.w;
}

__device__ __forceinline__ void load2(float (&to)[2], const float* from)
{
  const float2 q = *reinterpret_cast<const float2*>(from);
  to[0] = q.x; to[1] = q.y;
}

__device__ __forceinline__ void store2(float* to, const float (&from)[2])
{
  *reinterpret_cast<float2*>(to) = float2{from[0], from[1]};
}

__device__ __forceinline__ float sigmoid(float z) { return 0.5f * tanhf(0.5f * z) + 0.5f; }

// Where M has a parameter, and not a zero for ever.
__device__ __forceinline__ bool is_parameter(int j, int k)
{
  const bool of_h = k < H, of_x = k >= H && k < H + I;
  if (j >= G * H) return !of_x;
  if (CELL == GRU && j / H == 2) return !of_h;
  if (CELL == GRU && j / H == 3) return !of_x;
  return true;
}

// ---- the cells, for one row and column; steps numbered as in rnn_xp/cells ----

// z (G) of step 2, h_{t-1} and c_{t-1} to h_t; `kept` for the way back.
__device__ __forceinline__ float cell(const float (&z)[G], float h_prev, float c_prev, float* kept)
{
  if constexpr (CELL == GRU) {
    const float r = sigmoid(z[0]), u = sigmoid(z[1]), q = z[3];      // 3; u is the cell's z
    const float n = tanhf(fmaf(r, q, z[2]));                         // 4
    kept[0] = r; kept[1] = u; kept[2] = n; kept[3] = q;
    return (1.f - u) * n + u * h_prev;                               // 5
  } else if constexpr (CELL == LSTM) {
    const float i = sigmoid(z[0]), f = sigmoid(z[1]), g = tanhf(z[2]), o = sigmoid(z[3]);  // 3
    const float c = f * c_prev + i * g;                              // 4
    kept[0] = i; kept[1] = f; kept[2] = g; kept[3] = o; kept[4] = c;
    return o * tanhf(c);                                             // 5
  } else if constexpr (CELL == RNN_RELU) {
    return z[0] <= 0.f ? 0.f : z[0];  // 3; asked this way round, a NaN stays one
  } else {
    return tanhf(z[0]);                                              // 3
  }
}

// dh_t to dz_t (G). Leaves in dh the share of dh_{t-1} that takes no product, and in dc dc_{t-1}.
__device__ __forceinline__ void cell_back(float& dh, float& dc, float (&dz)[G], float h,
                                          float h_prev, float c_prev, const float* kept)
{
  if constexpr (CELL == GRU) {
    const float r = kept[0], u = kept[1], n = kept[2], q = kept[3];
    const float dn = dh * (1.f - u), du = dh * (h_prev - n);         // 5
    dz[2] = dn * (1.f - n * n);                                      // 4
    dz[3] = dz[2] * r;
    dz[0] = dz[2] * q * r * (1.f - r);                               // 3
    dz[1] = du * u * (1.f - u);
    dh = dh * u;                                                     // 5
  } else if constexpr (CELL == LSTM) {
    const float i = kept[0], f = kept[1], g = kept[2], o = kept[3], tanh_c = tanhf(kept[4]);
    dz[3] = dh * tanh_c * o * (1.f - o);                             // 5, 3
    dc += dh * o * (1.f - tanh_c * tanh_c);                          // 5
    dz[0] = dc * g * i * (1.f - i);                                  // 4, 3
    dz[1] = dc * c_prev * f * (1.f - f);
    dz[2] = dc * i * (1.f - g * g);
    dc = dc * f;                                                     // 4
    dh = 0.f;
  } else if constexpr (CELL == RNN_RELU) {
    dz[0] = h <= 0.f ? 0.f : dh;                                     // 3
    dh = 0.f;
  } else {
    dz[0] = dh * (1.f - h * h);                                      // 3
    dh = 0.f;
  }
}

// What step t kept of two columns and, of the LSTM, c_{t-1}.
__device__ __forceinline__ void load_kept(float (&keep)[KEPT + 1][2], float (&c_prev)[2],
                                          const float* kept, int t)
{
  c_prev[0] = c_prev[1] = 0.f;
  if (t < T)
#pragma unroll
    for (int q = 0; q < KEPT; ++q) load2(keep[q], kept + q * HP);
  if (CELL == LSTM && t < T && t > 0) load2(c_prev, kept + 4 * HP - KEPT_STEP);
}

// ---- losses, for one row: y (O) to dy (O); returns the loss, yet to be divided by the total ----

__device__ __forceinline__ float loss_back(float (&y)[O], const Target* target, float inv_total)
{
  if constexpr (CROSS_ENTROPY) {
    const int chosen = (int)*target;
    float shift = y[0], norm = 0.f, at_target = 0.f;
    for (int o = 1; o < O; ++o) shift = fmaxf(shift, y[o]);
    for (int o = 0; o < O; ++o) {
      y[o] -= shift;
      if (o == chosen) at_target = y[o];
      y[o] = expf(y[o]);
      norm += y[o];
    }
    for (int o = 0; o < O; ++o) y[o] = (y[o] / norm - (o == chosen ? 1.f : 0.f)) * inv_total;
    return logf(norm) - at_target;
  } else {
    float value = 0.f;
    for (int o = 0; o < O; ++o) {
      const float error = y[o] - (float)target[o];
      value += error * error;
      y[o] = 2.f * error * inv_total;
    }
    return value;
  }
}

// ---- the three products ----

// z (n, G, 2) += a (n rows of A) @ w, over columns first..last-1 of A, of these a slice's; w (KP, GP),
// columns c0, c0+1; `all` is w whole where not all of it is held. Where h enters, gate n of the GRU has
// only zeros: `of_h` leaves it out. Returns the slice's next column.
template <bool of_h, int n>
__device__ __forceinline__ int project(float (&z)[n][G][2], const float* a, const float* w,
                                       const float* all, int first, int last)
{
  int k = first;
#pragma unroll 1
  for (; k < last; k += STEP) {
    const float* from = HELD_A >= KP || k < HELD_A ? w : all;
    float row[n][4];
#pragma unroll
    for (int i = 0; i < n; ++i) load4(row[i], a + i * KP + k);
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int g = 0; g < G; ++g) {
        if (of_h && CELL == GRU && g == 2) continue;
        float column[2];
        load2(column, from + (k + e) * GP + g * HP);
#pragma unroll
        for (int i = 0; i < n; ++i) {
          z[i][g][0] = fmaf(row[i][e], column[0], z[i][g][0]);
          z[i][g][1] = fmaf(row[i][e], column[1], z[i][g][1]);
        }
      }
  }
  return k;
}

// dh (n, 2) += d (n rows of D) @ w, over columns first..last-1 of D, of these a slice's; w (JP, HP),
// columns c0, c0+1; `all` is w whole where not all of it is held.
template <int n>
__device__ __forceinline__ void project_back(float (*dh)[2], const float* d, const float* w,
                                             const float* all, int first, int last)
{
#pragma unroll 1
  for (int j = first; j < last; j += STEP) {
    if (CELL == GRU && !SLICED && j == 2 * HP) j = 3 * HP;  // h does not enter gate n
    const float* from = HELD_D >= JP || j < HELD_D ? w : all;
    float row[n][4];
#pragma unroll
    for (int i = 0; i < n; ++i) load4(row[i], d + i * JP + j);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float column[2];
      load2(column, from + (j + e) * HP);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        dh[i][0] = fmaf(row[i][e], column[0], dh[i][0]);
        dh[i][1] = fmaf(row[i][e], column[1], dh[i][1]);
      }
    }
  }
}

// y (O) += a (row of A) @ w.T, over a slice's columns of A from the first on; w (O, KP)
__device__ __forceinline__ void read_out(float (&y)[O], const float* a, const float* w, int first)
{
  for (int k = first; k < KP; k += STEP) {
    float of_a[4], of_w[4];
    load4(of_a, a + k);
#pragma unroll
    for (int o = 0; o < O; ++o) {
      load4(of_w, w + o * KP + k);
#pragma unroll
      for (int e = 0; e < 4; ++e) y[o] = fmaf(of_a[e], of_w[e], y[o]);
    }
  }
}

// ---- what a sliced block keeps in shared memory ----

// sum (2) += the slices' sums, in order
__device__ __forceinline__ void add_slices(float (&sum)[2], const float* sums, int apart)
{
#pragma unroll
  for (int s = 0; s < SLICES; ++s) {
    float of_slice[2];
    load2(of_slice, sums + s * apart);
    sum[0] += of_slice[0];
    sum[1] += of_slice[1];
  }
}

// Copy floats there, or from there; a multiple of 4.
__device__ __forceinline__ void copy(float* to, const float* from, int count)
{
#pragma unroll 4
  for (int i = 4 * threadIdx.x; i < count; i += 4 * THREADS)
    *reinterpret_cast<float4*>(to + i) = *reinterpret_cast<const float4*>(from + i);
}

// A step of A on its way there from the history: between `load` and `store` it has time.
struct Fetched {
  static constexpr int COUNT = (A_STEP / 4 + THREADS - 1) / THREADS;
  float4 quads[COUNT];

  __device__ __forceinline__ void load(const float* from)
  {
#pragma unroll
    for (int n = 0, i = threadIdx.x; n < COUNT; ++n, i += THREADS)
      if (4 * i < A_STEP) quads[n] = reinterpret_cast<const float4*>(from)[i];
  }

  __device__ __forceinline__ void store(float* to) const
  {
#pragma unroll
    for (int n = 0, i = threadIdx.x; n < COUNT; ++n, i += THREADS)
      if (4 * i < A_STEP) reinterpret_cast<float4*>(to)[i] = quads[n];
  }
};

// A thread's tile of dM: rows 4 * jq[.] + 0..3 of D's columns, columns 4 * kq[.] + 0..3 of A's.
struct Tile {
  float sum[8][8];
  int group, jq[2], kq[2];
  bool works;

  __device__ __forceinline__ void begin(int pass)
  {
    const int number = PASSES > 1 ? pass * THREADS + (int)threadIdx.x : (int)threadIdx.x % TILES;
    group = PASSES > 1 ? 0 : threadIdx.x / TILES;
    works = group < GROUPS && number < TILES;
    // Chunks of a tile lie apart, those of neighbouring threads side by side: no bank conflicts.
    jq[0] = number / KT; jq[1] = jq[0] + JT;
    kq[0] = number % KT; kq[1] = kq[0] + KT;
#pragma unroll
    for (int a = 0; a < 8; ++a)
#pragma unroll
      for (int b = 0; b < 8; ++b) sum[a][b] = 0.f;
  }

  // sum += D_t.T @ A_t over the group's rows
  __device__ __forceinline__ void collect(const float* d, const float* a, int t)
  {
    const bool readout = 4 * jq[1] >= GP, inputs = 4 * kq[1] + 3 >= H;
    if (!works || (t == T && !readout) || (t == 0 && !inputs)) return;  // all zero there
    // The last tiles reach beyond the edge: what they read there instead is not written below.
    const int j1 = 4 * jq[1] < JP ? jq[1] : 0, k1 = 4 * kq[1] < KP ? kq[1] : 0;
#pragma unroll 2
    for (int r = group; r < R; r += GROUPS) {
      float dj[2][4], ak[2][4];
      load4(dj[0], d + r * JP + 4 * jq[0]);
      load4(dj[1], d + r * JP + 4 * j1);
      load4(ak[0], a + r * KP + 4 * kq[0]);
      load4(ak[1], a + r * KP + 4 * k1);
#pragma unroll
      for (int m = 0; m < 8; ++m)
#pragma unroll
        for (int n = 0; n < 8; ++n)
          sum[m][n] = fmaf(dj[m / 4][m % 4], ak[n / 4][n % 4], sum[m][n]);
    }
  }
};

// Add the groups' tiles in order, and the rows' losses, to the block's row of partial sums.
__device__ __forceinline__ void reduce(const Tile& tile, float loss, float* red, float* out,
                                       int pass, bool first)
{
  const int tid = threadIdx.x;
  float* losses = red + 64 * THREADS;  // [R]
#pragma unroll
  for (int m = 0; m < 8; ++m)
#pragma unroll
    for (int n = 0; n < 8; ++n) red[(m * 8 + n) * THREADS + tid] = tile.sum[m][n];
  if (tid < R) losses[tid] = loss;
  BARRIER(5);
  for (int i = tid; i < 64 * AT_ONCE; i += THREADS) {
    const int slot = i % AT_ONCE, entry = i / AT_ONCE, number = pass * THREADS + slot;
    const int m = entry / 8, n = entry % 8;
    const int jp = 4 * (number / KT + m / 4 * JT) + m % 4, k = 4 * (number % KT + n / 4 * KT) + n % 4;
    // From padded rows of D to rows of M.
    const int j = jp < GP ? (jp % HP < H ? jp / HP * H + jp % HP : J) : G * H + jp - GP;
    if (number >= TILES || j >= J || k >= K) continue;
    float total = 0.f;
    for (int q = 0; q < GROUPS; ++q) total += red[entry * THREADS + q * AT_ONCE + slot];
    out[j * K + k] = first ? total : out[j * K + k] + total;
  }
  if (tid == 0 && pass == 0) {
    float total = 0.f;
    for (int r = 0; r < R; ++r) total += losses[r];
    out[J * K] = first ? total : out[J * K] + total;
  }
  BARRIER(6);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
train(const float* __restrict__ x,        // [N][T][I]
      const Target* __restrict__ target,  // [N][O] or [N][T][O]; classes [N] or [N][T]
      const float* __restrict__ weights,  // [WEIGHTS], from `place`
      float* workspace,                   // [blocks][WORKSPACE]
      float* partial,                     // [blocks][PARTIAL]
      int N, float inv_total)
{
  SHARED_MEMORY(shared);
  const int tid = threadIdx.x;
  const int c0 = tid % CG * 2, r0 = tid / CG * RPT;  // lanes of a warp share rows: A is broadcast
  const int slice = SLICED ? tid / CG : 0;
  const int owned = SLICED && slice >= R ? 0 : RPT;  // rows, from r0 on
  float* own = workspace + blockIdx.x * WORKSPACE;
  float* scratch = shared + W_SHARED;
  float* near = scratch;                                                  // of a sliced block: [2][R][KP]
  float* A = HISTORY_SHARED ? scratch : own;                              // [T+1][R][KP]
  float* D = COLLECT_AFTER ? own + A_GLOBAL : scratch + A_SHARED;         // [T+1 or 1][R][JP]
  float* D_near = scratch + A_SHARED;                                     // of a sliced block: [R][JP]
  float* sums = scratch + A_SHARED + D_SHARED;                            // [SLICES][R][GP or HP]
  float* y_sums = sums + SLICES * R * GP;                                 // [SLICES][R][OP]
  float* kept = own + A_GLOBAL + D_GLOBAL;                                // [T][R][KEPT][HP]
  float* out = partial + (long long)blockIdx.x * PARTIAL;

  const float* w = weights;
  if (SLICED) {
    w = shared;
    copy(shared, weights, HELD_A * GP);
  } else if (WEIGHTS_SHARED) {
    for (int i = tid; i < WEIGHTS; i += THREADS) shared[i] = weights[i];
    w = shared;
  }
  const float* forward = w + c0;                                          // [KP][GP]
  const float* backward = (SLICED ? w : w + KP * GP) + c0;                // [JP][HP]
  const float* readout = (SLICED ? weights : w) + KP * GP + JP * HP;      // [O][KP]

  for (int row0 = blockIdx.x * R; row0 < N; row0 += gridDim.x * R) {
    // ---- A_t = [h_{t-1} | x_t | 1]: all but h, which is 0 at first ----
    for (int i = tid; i < (T + 1 + SLICED) * R; i += THREADS) {  // A_0 of a sliced block twice
      const bool again = SLICED && i / R > T;
      const int t = again ? 0 : i / R, r = i % R;
      float* a = (again ? near : A + t * A_STEP) + r * KP;
      if (t == 0)
        for (int k = 0; k < H; ++k) a[k] = 0.f;
      for (int k = H; k < KP; ++k) a[k] = k == H + I ? 1.f : 0.f;
      if (t < T && row0 + r < N)
        for (int k = 0; k < I; ++k) a[H + k] = x[((long long)(row0 + r) * T + t) * I + k];
    }
    BARRIER(1);

    // ---- forward ----
    float c_own[2] = {};  // c_{t-1} of a sliced block's thread, which has one row
#pragma unroll 1
    for (int t = 0; t < T; ++t) {
      const float* a_t = SLICED ? near + t % 2 * A_STEP : A + t * A_STEP;
      float* h_t = SLICED ? near + (t + 1) % 2 * A_STEP : A + (t + 1) * A_STEP;
      if constexpr (SLICED) {
        Fetched next;
        next.load(A + (t + 1) * A_STEP);  // for its x; h is yet to come
        float z[R][G][2] = {};
        const int k = project<true>(z, a_t, forward, weights + c0, 4 * slice, H / 4 * 4);
        project<false>(z, a_t, forward, weights + c0, k, KP);
#pragma unroll
        for (int i = 0; i < R; ++i)
#pragma unroll
          for (int g = 0; g < G; ++g) store2(sums + (slice * R + i) * GP + g * HP + c0, z[i][g]);
        next.store(h_t);
        BARRIER(8);
      }
#pragma unroll 1
      for (int i0 = 0; i0 < owned; i0 += RT) {
        const float* a = a_t + (r0 + i0) * KP;
        float z[RT][G][2] = {};
        if (SLICED) {
#pragma unroll
          for (int g = 0; g < G; ++g) add_slices(z[0][g], sums + r0 * GP + g * HP + c0, R * GP);
        } else {
          project<true>(z, a, forward, forward, 0, H / 4 * 4);            // 1, 2
          project<false>(z, a, forward, forward, H / 4 * 4, KP);
        }
#pragma unroll
        for (int i = 0; i < RT; ++i) {
          float* own_kept = kept + t * (long long)KEPT_STEP + (r0 + i0 + i) * KEPT * HP + c0;
          float keep[2][KEPT + 1] = {}, c_prev[2] = {};
          if (CELL == LSTM && SLICED) c_prev[0] = c_own[0], c_prev[1] = c_own[1];
          else if (CELL == LSTM && t > 0) load2(c_prev, own_kept + 4 * HP - KEPT_STEP);
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            float gates[G];
#pragma unroll
            for (int g = 0; g < G; ++g) gates[g] = z[i][g][c];
            if (c0 + c >= H) break;
            const float h = cell(gates, a[i * KP + c0 + c], c_prev[c], keep[c]);  // 3 to 5
            c_own[c] = keep[c][KEPT > 0 ? KEPT - 1 : 0];
            h_t[(r0 + i0 + i) * KP + c0 + c] = h;
            if (SLICED) A[(t + 1) * A_STEP + r0 * KP + c0 + c] = h;
          }
#pragma unroll
          for (int q = 0; q < KEPT; ++q) store2(own_kept + q * HP, {keep[0][q], keep[1][q]});
        }
      }
      BARRIER(2);
    }

    // ---- backward ----
    float dh[RPT][2] = {}, dc[RPT][2] = {}, loss = 0.f, keep[KEPT + 1][2], c_prev[2] = {};
    Tile tile;
    tile.begin(0);
    if (SLICED) copy(shared, weights + KP * GP, HELD_D * HP);
#pragma unroll 1
    for (int t = T; t >= 0; --t) {
      const float* a = SLICED ? near + t % 2 * A_STEP : A + t * A_STEP;
      const float* h_t = SLICED ? near + (t + 1) % 2 * A_STEP : a + A_STEP;
      float* d = SLICED ? D_near : D + (COLLECT_AFTER ? t * (long long)D_STEP : 0);
      const bool read = t == T || (EVERY_STEP && t > 0);
      Fetched next;
      if (SLICED && t > 0) next.load(A + (t - 1) * A_STEP);
      if (SLICED && read) {
        for (int i = tid; i < SLICES * R; i += THREADS) {
          float y[O] = {};
          read_out(y, a + i % R * KP, readout, 4 * (i / R));
          for (int o = 0; o < O; ++o) y_sums[i * OP + o] = y[o];
        }
        BARRIER(9);
      }
      if (tid < R) {  // y_{t-1}, its loss and dy_{t-1}: a row for each thread
        float y[O] = {};
        float* d_row = d + tid * JP;
        if (read && row0 + tid < N) {
          if (!SLICED) read_out(y, a + tid * KP, readout, 0);
          else
            for (int s = 0; s < SLICES; ++s)
              for (int o = 0; o < O; ++o) y[o] += y_sums[(s * R + tid) * OP + o];
          const long long entry = EVERY_STEP ? (long long)(row0 + tid) * T + t - 1 : row0 + tid;
          loss += loss_back(y, target + entry * (CROSS_ENTROPY ? 1 : O), inv_total);
        }
#pragma unroll
        for (int o = 0; o < OP; ++o) d_row[GP + o] = o < O ? y[o] : 0.f;
        for (int g = 0; g < G; ++g)  // columns that no thread owns
          for (int c = H; c < HP; ++c) d_row[g * HP + c] = 0.f;
      }
#pragma unroll
      for (int i = 0; i < RPT; ++i) {  // dz_t
        if (i >= owned) break;
        const float* own_kept = kept + t * (long long)KEPT_STEP + (r0 + i) * KEPT * HP + c0;
        if (!SLICED) load_kept(keep, c_prev, own_kept, t);
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float dz[G] = {}, of_column[KEPT + 1];
          if (c0 + c >= H) break;
          if (t < T) {
#pragma unroll
            for (int q = 0; q < KEPT; ++q) of_column[q] = keep[q][c];
            const int at = (r0 + i) * KP + c0 + c;
            cell_back(dh[i][c], dc[i][c], dz, h_t[at], a[at], c_prev[c], of_column);
          }
#pragma unroll
          for (int g = 0; g < G; ++g) d[(r0 + i) * JP + g * HP + c0 + c] = dz[g];
        }
      }
      BARRIER(3);
      if (SLICED && owned && t > 0)  // for the next step: it takes a while
        load_kept(keep, c_prev, kept + (t - 1) * (long long)KEPT_STEP + r0 * KEPT * HP + c0, t - 1);
      if (!COLLECT_AFTER) tile.collect(d, a, t);
      if constexpr (SLICED) {
        if (COLLECT_AFTER) copy(D + t * (long long)D_STEP, d, D_STEP);
        if (t > 0) {
          const float* all = weights + KP * GP + c0;
          constexpr int N_FROM = CELL == GRU ? 2 * HP : 0, N_TO = CELL == GRU ? 3 * HP : 0;
          float sum[R][2] = {};
          project_back<R>(sum, d, backward, all, 4 * slice, N_FROM);  // h does not enter gate n
          project_back<R>(sum, d, backward, all, N_TO + 4 * slice, JP);
#pragma unroll
          for (int i = 0; i < R; ++i) store2(sums + (slice * R + i) * HP + c0, sum[i]);
          next.store(near + (t - 1) % 2 * A_STEP);
        }
        BARRIER(4);
        if (t > 0 && owned) add_slices(dh[0], sums + r0 * HP + c0, R * HP);  // dh_{t-1}
      } else {
        if (t > 0)
#pragma unroll
          for (int i0 = 0; i0 < RPT; i0 += RT)  // dh_{t-1}
            project_back<RT>(dh + i0, d + (r0 + i0) * JP, backward, backward,
                             t == T ? GP : 0, read ? JP : GP);
        BARRIER(4);
      }
    }

    // ---- dM of the block ----
#pragma unroll 1
    for (int pass = 0; pass < PASSES; ++pass) {
      if (COLLECT_AFTER) {
        tile.begin(pass);
        for (int t = T; t >= 0; --t) tile.collect(D + t * (long long)D_STEP, A + t * A_STEP, t);
      }
      reduce(tile, loss, SLICED ? shared : scratch, out, pass, row0 == (int)blockIdx.x * R);
    }
  }
}

// ---- parameters, and their copies as the products read them ----

// Bring entry i of M to its places in `weights`, which was all zeros before.
__device__ __forceinline__ void place_entry(int i, float value, float* weights)
{
  const int j = i / K, k = i % K;
  float *forward = weights, *backward = forward + KP * GP, *readout = backward + JP * HP;
  const int jp = j < G * H ? j / H * HP + j % H : GP + j - G * H;
  if (j < G * H) forward[k * GP + jp] = value;
  else readout[(j - G * H) * KP + k] = value;
  if (k < H) backward[jp * HP + k] = value;
}

extern "C" __global__ void place(const float* M, float* weights)
{
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < J * K) place_entry(i, M[i], weights);
}

// Sum of column i of the partial sums: 8 slices of the rows, then these in order. The result is
// right in slice 0.
__device__ __forceinline__ float sum_partial(const float* partial, int blocks, int i, int slice)
{
  SHARED_MEMORY(sums);  // [8][32]
  float sum = 0.f;
  if (i < PARTIAL)
#pragma unroll 4
    for (int b = slice; b < blocks; b += 8) sum += partial[(long long)b * PARTIAL + i];
  sums[threadIdx.x] = sum;
  BARRIER(7);
  if (slice == 0)
    for (int s = 1; s < 8; ++s) sum += sums[s * 32 + threadIdx.x];
  return sum;
}

// For optimisers that are not below: dM, then the loss.
extern "C" __global__ void gradient(const float* __restrict__ partial, int blocks, float inv_total,
                                    float* total)
{
  const int i = blockIdx.x * 32 + threadIdx.x % 32, slice = threadIdx.x / 32;
  const float g = sum_partial(partial, blocks, i, slice);
  if (slice == 0 && i < PARTIAL) total[i] = i == J * K ? g * inv_total : g;
}

// The steps of rnn_xp.optim. What depends on the update's number comes from the host, which counts in
// double: rates [epochs][2], the second of Adam alone. losses [epochs].

extern "C" __global__ void sgd(const float* __restrict__ partial, int blocks, float inv_total, int epoch,
                               const float* __restrict__ rates, float* losses, float* M, float* weights)
{
  const int i = blockIdx.x * 32 + threadIdx.x % 32, slice = threadIdx.x / 32;
  const float g = sum_partial(partial, blocks, i, slice);
  if (slice != 0 || i >= PARTIAL) return;
  if (i == J * K) { losses[epoch] = g * inv_total; return; }
  if (!is_parameter(i / K, i % K)) return;
  M[i] -= rates[2 * epoch] * g;
  place_entry(i, M[i], weights);
}

// rates: learning_rate / (1 - beta1**t), sqrt(1 - beta2**t); rest = 1 - beta
extern "C" __global__ void adam(const float* __restrict__ partial, int blocks, float inv_total, int epoch,
                                const float* __restrict__ rates, float* losses, float* M, float* weights,
                                float* m, float* v, float beta1, float rest1, float beta2, float rest2,
                                float eps)
{
  const int i = blockIdx.x * 32 + threadIdx.x % 32, slice = threadIdx.x / 32;
  const float g = sum_partial(partial, blocks, i, slice);
  if (slice != 0 || i >= PARTIAL) return;
  if (i == J * K) { losses[epoch] = g * inv_total; return; }
  if (!is_parameter(i / K, i % K)) return;
  m[i] = beta1 * m[i] + rest1 * g;
  v[i] = beta2 * v[i] + rest2 * (g * g);
  M[i] -= rates[2 * epoch] * m[i] / (sqrtf(v[i]) / rates[2 * epoch + 1] + eps);
  place_entry(i, M[i], weights);
}
