// The steps forward.

// sum (R, G, 2) = what enters the step (R, KP) @ weights, over a slice's terms
__device__ __forceinline__ void multiply(float (&sum)[R][G][2], const float* enter, const Weights& w)
{
#pragma unroll
  for (int k = 0; k < HELD_TERMS; k += 4)
#pragma unroll
    for (int r = 0; r < R; ++r) {
      float row[4];
      load4(row, enter + r * KP + k);
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int g = 0; g < G; ++g)
#pragma unroll
          for (int c = 0; c < 2; ++c) sum[r][g][c] = fmaf(row[e], w.held[k + e][g][c], sum[r][g][c]);
    }
#pragma unroll 1
  for (int k = HELD_TERMS; k < TERMS; k += 4) {
    float row[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r) load4(row[r], enter + r * KP + k);
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int g = 0; g < G; ++g) {
        Pair column;
        w.other(column, k + e, g);
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
          for (int c = 0; c < 2; ++c) sum[r][g][c] = fmaf(row[r][e], column[c], sum[r][g][c]);
      }
  }
}

// outs (T, N, width) = h + x; every thread reads the states that it wrote itself
__device__ __forceinline__ void add_inputs(const Course& course, const Rows& x, const float* h, float* outs, int rank,
                                           int own)
{
  const int j0 = rank * U + threadIdx.x % PAIRS * 2, slice = threadIdx.x / PAIRS;
  const int column = course.reverse ? H + j0 : j0;
  for (int n = blockIdx.x / C * R + slice; slice < R && n < course.N; n += gridDim.x / C * R)
#pragma unroll 1
    for (int t = 0; t < course.T; ++t) {
      Pair past, state;
      read(past, x.first + t * x.of_step + n * x.of_row + column, own);
      read(state, h + course.after(t, n, j0), own);
      past[0] += state[0];
      past[1] += state[1];
      write(outs + course.row(t, n) * course.width + column, past, own);
    }
}

extern "C" __global__ void CLUSTER_DIMS __launch_bounds__(THREADS, 1)
forward(const float* __restrict__ w_xh,  // [G*H][inputs], with NORM centred as w_hh
        const float* __restrict__ w_hh,  // [G*H][H]
        const float* __restrict__ b_h,   // [G*H]
        const float* __restrict__ b_hn,  // [H], of the GRU
        const float* __restrict__ g_xh, const float* __restrict__ g_hh,  // [G*H], with NORM
        const float* xs, const float* factors, long long of_step, long long of_row,  // [T][N][inputs]
        const float* keep, const bool* idle, const bool* reset, const int* lengths,
        const float* initial_h, const float* initial_c,  // [N][H]; null for zeros
        float* z,                                        // [T][N][G*H]: the input's products, then the gates
        float* products,                                 // [T][N][G*H], with NORM: n of the input's products
        float* a,                                        // [T][N][3*H], of the GRU: q in the last third
                                                         // with NORM [T][N][G*H], of every cell: n
        float* inverses,                                 // [2][T][N], with NORM: of the deviations
        float* h, float* c,                              // [T+2][N][width], c of the LSTM
        float* entered,                                  // [T][N][H], or null: h_{t-1} as the product takes it
        float* outs,                                     // [T][N][width], or null: h + x
        int T, int N, int inputs, int width, int reverse)
{
  SHARED_MEMORY(memory);
  float* shared = memory + ROUNDS;
  const Course course{keep, idle, reset, lengths, T, N, reverse, width};
  const Rows x{xs, factors, of_step, of_row, inputs};
  const int tid = threadIdx.x, c0 = tid % PAIRS * 2, slice = tid / PAIRS, k0 = slice * TERMS;
  const int rank = cluster_rank(), j0 = rank * U + c0;  // c0 is the first column in the block, j0 in all
  const int own = owned(rank, c0);
  for (int i = tid; i < ROUNDS; i += THREADS) memory[i] = 0.f;  // some beyond the last pair stay
  project(shared, course, x, w_xh, NORM ? products : z, rank, own);
  if constexpr (NORM) {
    CLUSTER_BARRIER(10);
    normalise(memory, course, rank, own, products, z, g_xh, inverses + (long long)T * N);
  } else {
    BARRIER(12);
  }
  float* enter = shared + W_SHARED;         // [BUFFERS][R][KP]
  float* parts = enter + BUFFERS * R * KP;  // [R][C][PARTS]
  float* sums = parts + R * C * PARTS;      // [SLICES][R][G][HP]
  float* biases = sums + SLICES * R * G * HP + c0;  // [BIASES][HP]; there is no register left for them
  float* gains = biases + BIASES * HP;              // [GAINS][HP]
  Weights w;
  w.load(shared, k0, own, [&](int g, int k, int c) { return w_hh[(g * H + j0 + c) * H + k]; });
  for (int i = tid; i < BUFFERS * R * KP; i += THREADS) enter[i] = 0.f;
  if (slice == 0)
#pragma unroll
    for (int g = 0; g < BIASES; ++g) {
      Pair bias;
      read(bias, g < G ? b_h + g * H + j0 : b_hn + j0, own);
      store2(biases + g * HP, bias);
    }
  if (NORM) {
    for (int i = tid; i < R * C * PARTS; i += THREADS) parts[i] = 0.f;  // some beyond the last pair stay
    if (slice == 0)
#pragma unroll
      for (int g = 0; g < GAINS; ++g) {
        Pair gain;
        read(gain, g_hh + g * H + j0, own);
        store2(gains + g * HP, gain);
      }
  }
  CLUSTER_BARRIER(1);

  int buffer = 0;
  for (int row0 = blockIdx.x / C * R; row0 < N; row0 += gridDim.x / C * R) {
    // A thread's own row, if it has one: the first R slices share out the rows.
    const int n = row0 + slice, length = course.length(n), longest = course.length(row0);
    const bool owns = slice < R && n < N;
    const long long at = (long long)n * H + j0;
    Pair h_own = {}, c_own = {};
    if (owns) {
      if (initial_h) read(h_own, initial_h + at, own);
      if (CELL == LSTM && initial_c) read(c_own, initial_c + at, own);
      const long long first = course.before(course.time(0), n, j0);
      write(h + first, h_own, own);
      if (CELL == LSTM) write(c + first, c_own, own);
    }
#pragma unroll 1
    for (int i = 0; i < T; ++i) {
      const int t = course.time(i);
      if (owns && course.begins(t, n)) h_own[0] = h_own[1] = c_own[0] = c_own[1] = 0.f;
      if (t < longest) {
        const bool inside = owns && t < length, active = inside && !course.skips(t, n);
        const long long row = course.row(t, n);
        float* own_z = z + row * G * H + j0;
        Pair zs[G] = {};
        if (active)
#pragma unroll
          for (int g = 0; g < G; ++g) read(zs[g], own_z + g * H, own);
        if (owns) {
          Pair factor = {1.f, 1.f};
          if (keep) read(factor, keep + at, own);
          const Pair entering = {h_own[0] * factor[0], h_own[1] * factor[1]};
          send(enter + (buffer * R + slice) * KP + j0, entering, own);
          if (entered && inside) write(entered + row * H + j0, entering, own);
        }
        CLUSTER_BARRIER(2);
        float sum[R][G][2] = {};
        multiply(sum, enter + buffer * R * KP + k0, w);
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
          for (int g = 0; g < G; ++g) store2(sums + ((slice * R + r) * G + g) * HP + c0, sum[r][g]);
        BARRIER(3);
        Pair product[G] = {};
        if (active)
#pragma unroll
          for (int g = 0; g < G; ++g) add_slices(product[g], sums + (slice * G + g) * HP + c0, R * G * HP);
        if constexpr (NORM) {
          if (active) {
            float squares = 0.f;
#pragma unroll
            for (int g = 0; g < G; ++g)
              squares = fmaf(product[g][0], product[g][0], fmaf(product[g][1], product[g][1], squares));
            send(parts + (slice * C + rank) * PARTS + c0 / 2, squares);
          }
          CLUSTER_BARRIER(4);
          if (active) {
            const float inv = inverse(add_parts(parts + slice * C * PARTS, C * PARTS), G * H);
            if (j0 == 0) inverses[row] = inv;
#pragma unroll
            for (int g = 0; g < G; ++g) {
              product[g][0] *= inv;
              product[g][1] *= inv;
              write(a + row * G * H + g * H + j0, product[g], own);
              Pair gain;
              load2(gain, gains + g * HP);
              product[g][0] *= gain[0];
              product[g][1] *= gain[1];
            }
          }
        }
        if (active) {
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            float gates[G], of_h[G];
#pragma unroll
            for (int g = 0; g < G; ++g) gates[g] = zs[g][k] + biases[g * HP + k], of_h[g] = product[g][k];
            if (CELL == GRU) product[G - 1][k] = of_h[G - 1] += biases[G * HP + k];
            h_own[k] = cell(gates, of_h, h_own[k], c_own[k]);
#pragma unroll
            for (int g = 0; g < G; ++g) zs[g][k] = gates[g];
          }
          if (G > 1)
#pragma unroll
            for (int g = 0; g < G; ++g) write(own_z + g * H, zs[g], own);
          if (CELL == GRU && !NORM) write(a + row * G * H + 2 * H + j0, product[G - 1], own);
        }
        if (C > 1) buffer = 1 - buffer;  // a block may be a step ahead of what another still reads
      }
      if (owns) {
        const long long after = course.after(t, n, j0);
        write(h + after, h_own, own);
        if (CELL == LSTM) write(c + after, c_own, own);
      }
    }
  }
  if (outs) add_inputs(course, Rows{xs, nullptr, of_step, of_row, inputs}, h, outs, rank, own);
}
