// The steps back.

// sum (R, 2) = da (R, G, KP) @ weights, over a slice's terms of every gate
__device__ __forceinline__ void multiply_back(float (&sum)[R][2], const float* da, const Weights& w)
{
#pragma unroll
  for (int k = 0; k < HELD_TERMS; k += 4)
#pragma unroll
    for (int g = 0; g < G; ++g)
#pragma unroll
      for (int r = 0; r < R; ++r) {
        float row[4];
        load4(row, da + (r * G + g) * KP + k);
#pragma unroll
        for (int e = 0; e < 4; ++e)
#pragma unroll
          for (int c = 0; c < 2; ++c) sum[r][c] = fmaf(row[e], w.held[k + e][g][c], sum[r][c]);
      }
#pragma unroll 1
  for (int k = HELD_TERMS; k < TERMS; k += 4)
#pragma unroll
    for (int g = 0; g < G; ++g) {
      float row[R][4];
#pragma unroll
      for (int r = 0; r < R; ++r) load4(row[r], da + (r * G + g) * KP + k);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        Pair column;
        w.other(column, k + e, g);
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
          for (int c = 0; c < 2; ++c) sum[r][c] = fmaf(row[r][e], column[c], sum[r][c]);
      }
    }
}

// The gradients that the loss sends to h_t, of the steps that are read.
struct Losses {
  const float* dhs;
  long long of_step, of_row;
  int first, last;

  __device__ __forceinline__ void add(Pair& dh, int t, int n, int c0, bool two) const
  {
    if (t < first || t > last) return;
    Pair loss;
    read(loss, dhs + (t - first) * of_step + n * of_row + c0, two);
    dh[0] += loss[0];
    dh[1] += loss[1];
  }
};

// What step t left of a row: it is fetched a step ahead, since it takes a while.
struct Kept {
  Pair gate[G], q, before, after;

  __device__ __forceinline__ void load(const Course& course, int t, int n, int c0, bool two, const float* z,
                                       const float* a, const float* h, const float* c)
  {
    const long long row = course.packed(t, n) * G * H + c0, at = (long long)n * H + c0;
    if (G > 1)
#pragma unroll
      for (int g = 0; g < G; ++g) read(gate[g], z + row + g * H, two);
    if (CELL == GRU) read(q, a + row + 2 * H, two);
    const float* state = CELL == LSTM ? c : h;
    if (G > 1) read(before, state + course.before(t) * H + at, two);
    if (CELL != GRU) read(after, state + course.after(t) * H + at, two);
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1)
backward(const float* __restrict__ w_hh,  // [G*H][H]
         const float* keep, const bool* idle, const bool* reset, const int* lengths, const int* offsets,
         const float* dhs, long long of_step, long long of_row, int first, int last,
         const float* dfinal_h, const float* dfinal_c,  // [N][H]; null for zeros
         float* z,                                      // [M][G*H], the gates; then dZ
         float* a,                                      // [M][3*H], of the GRU; then dA
         const float* h, const float* c,                // [T+1][N][H]
         float* dinitial_h, float* dinitial_c,          // [N][H]; null if nobody asks
         int T, int N, int reverse)
{
  SHARED_MEMORY(shared);
  const Course course{keep, idle, reset, lengths, offsets, T, N, reverse};
  const Losses losses{dhs, of_step, of_row, first, last};
  const int tid = threadIdx.x, c0 = tid % PAIRS * 2, slice = tid / PAIRS, k0 = slice * TERMS;
  const bool two = c0 + 1 < H;
  float* da = shared + W_SHARED;   // [R][G][KP]
  float* sums = da + R * G * KP;   // [SLICES][R][HP]
  Weights w;
  w.load(shared, k0, c0, [&](int g, int k, int column) { return w_hh[(g * H + k) * H + column]; });
  for (int i = tid; i < R * G * KP; i += THREADS) da[i] = 0.f;
  BARRIER(4);

  for (int row0 = blockIdx.x * R; row0 < N; row0 += gridDim.x * R) {
    const int n = row0 + slice, length = course.length(n), longest = course.length(row0);
    const bool owns = slice < R && n < N;
    const long long at = (long long)n * H + c0;
    Pair dh = {}, dc = {}, factor = {1.f, 1.f};
    Kept kept = {};
    const auto fetch = [&](int i) {
      if (const int t = course.time(i); owns && i >= 0 && t < length) kept.load(course, t, n, c0, two, z, a, h, c);
    };
    if (owns) {
      if (dfinal_h) read(dh, dfinal_h + at, two);
      if (CELL == LSTM && dfinal_c) read(dc, dfinal_c + at, two);
      if (keep) read(factor, keep + at, two);
    }
    fetch(T - 1);
#pragma unroll 1
    for (int i = T - 1; i >= 0; --i) {
      const int t = course.time(i);
      const bool begins = owns && course.begins(t, n);
      if (owns) losses.add(dh, t, n, c0, two);
      if (t < longest) {
        const bool inside = owns && t < length, active = inside && !course.skips(t, n);
        const long long row = course.packed(t, n) * G * H + c0;
        Pair dzs[G] = {}, das[G] = {};
        if (active)
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            float dz[G], d[G], gate[G];
#pragma unroll
            for (int g = 0; g < G; ++g) gate[g] = kept.gate[g][k];
            cell_back(dh[k], dc[k], dz, d, gate, kept.q[k], begins ? 0.f : kept.before[k], kept.after[k]);
#pragma unroll
            for (int g = 0; g < G; ++g) dzs[g][k] = dz[g], das[g][k] = d[g];
          }
        if (owns)
#pragma unroll
          for (int g = 0; g < G; ++g) {
            write(da + (slice * G + g) * KP + c0, das[g], two);
            if (!inside) continue;
            write(z + row + g * H, dzs[g], two);
            if (CELL == GRU) write(a + row + g * H, das[g], two);
          }
        BARRIER(5);
        fetch(i - 1);
        if (i > 0 || dinitial_h) {  // nobody asks for the gradient of the zeros before the first step
          float sum[R][2] = {};
          multiply_back(sum, da + k0, w);
#pragma unroll
          for (int r = 0; r < R; ++r) store2(sums + (slice * R + r) * HP + c0, sum[r]);
          BARRIER(6);
          if (active) {
            Pair through;
            add_slices(through, sums + slice * HP + c0, R * HP);
            dh[0] = fmaf(through[0], factor[0], dh[0]);
            dh[1] = fmaf(through[1], factor[1], dh[1]);
          }
        }
      } else {
        fetch(i - 1);
      }
      if (begins) dh[0] = dh[1] = dc[0] = dc[1] = 0.f;
    }
    if (owns && dinitial_h) {
      write(dinitial_h + at, dh, two);
      if (CELL == LSTM) write(dinitial_c + at, dc, two);
    }
  }
}
