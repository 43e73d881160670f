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

  __device__ __forceinline__ void add(Pair& dh, int t, int n, int j0, int own) const
  {
    if (t < first || t > last) return;
    Pair loss;
    read(loss, dhs + (t - first) * of_step + n * of_row + j0, own);
    dh[0] += loss[0];
    dh[1] += loss[1];
  }
  __device__ __forceinline__ float of(int t, int n, int j) const
  {
    return t < first || t > last ? 0.f : dhs[(t - first) * of_step + n * of_row + j];
  }
};

// What step t left of a row: it is fetched a step ahead, since it takes a while.
struct Kept {
  Pair gate[G], q, before, after;
  Pair normal[NORM ? G : 1];
  float inv;

  __device__ __forceinline__ void load(const Course& course, int t, int n, int j0, int own,
                                       const float* z, const float* a, const float* inverses,
                                       const float* h, const float* c)
  {
    const long long place = course.row(t, n), row = place * G * H + j0;
    if (G > 1)
#pragma unroll
      for (int g = 0; g < G; ++g) read(gate[g], z + row + g * H, own);
    if (CELL == GRU && !NORM) read(q, a + row + 2 * H, own);
    if constexpr (NORM) {
      inv = inverses[place];
#pragma unroll
      for (int g = 0; g < G; ++g) read(normal[g], a + row + g * H, own);
    }
    const float* state = CELL == LSTM ? c : h;
    if (G > 1) read(before, state + course.before(t, n, j0), own);
    if (CELL != GRU) read(after, state + course.after(t, n, j0), own);
  }
};

// With NORM, for column k of the two: d (G) becomes dn, and its share in the sum of dn n is returned.
// Adds d n to the gradient of the gain, and the GRU's d to that of b_hn.
__device__ __forceinline__ float scale_back(float (&d)[G], float* dgains, const float* gains,
                                            const Pair (&n)[NORM ? G : 1], int k)
{
  float along = 0.f;
  if (CELL == GRU) dgains[G * HP] += d[G - 1];
#pragma unroll
  for (int g = 0; g < GAINS; ++g) {
    dgains[g * HP] = fmaf(d[g], n[g][k], dgains[g * HP]);
    d[g] *= gains[g * HP];
    along = fmaf(d[g], n[g][k], along);
  }
  return along;
}

// dx (T, N, inputs) of the block's own rows
struct Inputs {
  const float* factors;  // [T][N][width], see Rows
  float* dx;
  int width, adds, residual;  // adds: the other direction has written its part

  __device__ __forceinline__ void write(const Course& course, const Losses& losses, int t, int n, int i, float value) const
  {
    const long long at = course.row(t, n) * width + i;
    const int j = i - course.reverse * H;
    if (factors) value *= factors[at];
    if (residual && 0 <= j && j < H) value += losses.of(t, n, j);
    dx[at] = adds ? dx[at] + value : value;
  }
};

__device__ __forceinline__ void give_inputs(float* shared, const Course& course, const Losses& losses,
                                            const Inputs& to, const float* z, const float* w_xh, int rank)
{
  const int c0 = threadIdx.x % PAIRS * 2;
  for (int row0 = blockIdx.x / C * R; row0 < course.N; row0 += gridDim.x / C * R) {
    const int longest = course.length(row0);
    for (int first = rank * HP; first < to.width; first += C * HP)
      product<1>(
        shared, longest * R, G * H,
        [&](int m, int k) {
          const int t = step_of(m), n = row_of(m, row0);
          return t < course.length(n) ? z[course.row(t, n) * G * H + k] : 0.f;
        },
        [&](int k, int, int c) { return first + c < to.width ? w_xh[(long long)k * to.width + first + c] : 0.f; },
        [&](int m, int, const Pair& sum) {
          const int t = step_of(m), n = row_of(m, row0);
          for (int k = 0; k < 2; ++k)
            if (n < course.N && first + c0 + k < to.width) to.write(course, losses, t, n, first + c0 + k, sum[k]);
        });
    const int count = R * to.width;  // beyond the longest
    for (int i = rank * THREADS + threadIdx.x; i < (course.T - longest) * count; i += C * THREADS)
      if (const int n = row0 + i % count / to.width; n < course.N)
        to.write(course, losses, longest + i / count, n, i % to.width, 0.f);
  }
}

// sums of a cluster (SUMS, H): dg_hh, db_hn of the GRU, dg_xh and db_h
__device__ __forceinline__ void add_sums(float* shared, const float* dgains, const Pair (&dgain)[G], const Pair (&db)[G],
                                         int j0, int own, float* sums)
{
  const int c0 = threadIdx.x % PAIRS * 2, slice = threadIdx.x / PAIRS;
#pragma unroll
  for (int g = 0; g < G; ++g) {
    store2(shared + (slice * 2 * G + g) * HP + c0, dgain[g]);
    store2(shared + (slice * 2 * G + G + g) * HP + c0, db[g]);
  }
  BARRIER(15);
  if (slice) return;
  sums += blockIdx.x / C * (long long)SUMS * H + j0;
  for (int g = 0; g < SUMS; ++g) {
    Pair sum = {};
    if (g >= BIASES) {
      add_slices(sum, shared + (g - BIASES) * HP + c0, 2 * G * HP);
    } else {
      for (int r = 0; r < R; ++r) {
        sum[0] += dgains[(r * BIASES + g) * HP + c0];
        sum[1] += dgains[(r * BIASES + g) * HP + c0 + 1];
      }
    }
    write(sums + g * H, sum, own);
  }
}

extern "C" __global__ void CLUSTER_DIMS __launch_bounds__(THREADS, 1)
backward(const float* __restrict__ w_xh,  // [G*H][inputs], as in forward
         const float* __restrict__ w_hh,  // [G*H][H]
         const float* __restrict__ b_hn,  // [H], of the GRU; this and the next with NORM alone
         const float* __restrict__ g_xh, const float* __restrict__ g_hh,  // [G*H]
         const float* factors,
         const float* keep, const bool* idle, const bool* reset, const int* lengths,
         const float* dhs, long long of_step, long long of_row, int first, int last,
         const float* dfinal_h, const float* dfinal_c,  // [N][H]; null for zeros
         float* z,                                      // [T][N][G*H], the gates; then dZ
         const float* products,                         // [T][N][G*H], see forward
         float* a,                                      // [T][N][3*H], of the GRU, see forward; then dA
         const float* inverses,                         // [2][T][N]
         float* sums_of_rows,                           // [clusters][SUMS][H], with NORM
         const float* h, const float* c,                // [T+2][N][width]
         float* dinitial_h, float* dinitial_c,          // [N][H]; null if nobody asks
         float* dx,                                     // [T][N][inputs]; null if nobody asks
         int adds, int residual, int T, int N, int inputs, int width, int reverse)
{
  SHARED_MEMORY(memory);
  float *dgains = memory + ROUNDS, *shared = dgains + DGAINS;
  const Course course{keep, idle, reset, lengths, T, N, reverse, width};
  const Losses losses{dhs, of_step, of_row, first, last};
  const int tid = threadIdx.x, c0 = tid % PAIRS * 2, slice = tid / PAIRS, k0 = slice * TERMS;
  const int rank = cluster_rank(), j0 = rank * U + c0;
  const int own = owned(rank, c0);
  float* both = shared + W_SHARED;             // [BUFFERS][R][G][KP] of da
  float* parts = both + BUFFERS * R * G * KP;  // [R][C][PARTS]
  float* sums = parts + R * C * PARTS;         // [SLICES][R][HP]
  float* gains = sums + SLICES * R * HP + c0;  // [BIASES][HP]: g_hh, b_hn
  float* own_dgains = dgains + slice * BIASES * HP + c0;  // [R][BIASES][HP]
  Weights w;
  w.load(shared, k0, own, [&](int g, int k, int c) { return w_hh[(g * H + k) * H + j0 + c]; });
  for (int i = tid; i < R * (BUFFERS * G * KP + C * PARTS); i += THREADS) both[i] = 0.f;  // and parts, which follow
  for (int i = tid; i < ROUNDS + DGAINS; i += THREADS) memory[i] = 0.f;
  if (NORM && slice == 0)
#pragma unroll
    for (int g = 0; g < BIASES; ++g) {
      Pair gain;
      read(gain, g < G ? g_hh + g * H + j0 : b_hn + j0, own);
      store2(gains + g * HP, gain);
    }
  CLUSTER_BARRIER(5);

  int buffer = 0;
  for (int row0 = blockIdx.x / C * R; row0 < N; row0 += gridDim.x / C * R) {
    const int n = row0 + slice, length = course.length(n), longest = course.length(row0);
    const bool owns = slice < R && n < N;
    const long long at = (long long)n * H + j0;
    Pair dh = {}, dc = {}, factor = {1.f, 1.f};
    Kept kept = {};
    const auto fetch = [&](int i) {
      if (const int t = course.time(i); owns && i >= 0 && t < length) kept.load(course, t, n, j0, own, z, a, inverses, h, c);
    };
    if (owns) {
      if (dfinal_h) read(dh, dfinal_h + at, own);
      if (CELL == LSTM && dfinal_c) read(dc, dfinal_c + at, own);
      if (keep) read(factor, keep + at, own);
    }
    fetch(T - 1);
#pragma unroll 1
    for (int i = T - 1; i >= 0; --i) {
      const int t = course.time(i);
      const bool begins = owns && course.begins(t, n);
      if (owns) losses.add(dh, t, n, j0, own);
      if (t < longest) {
        const bool inside = owns && t < length, active = inside && !course.skips(t, n);
        const long long row = course.row(t, n) * G * H + j0;
        float* da = both + buffer * R * G * KP;
        float along = 0.f;
        if (owns)
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            float dz[G] = {}, d[G] = {}, gate[G];
            if (active) {
#pragma unroll
              for (int g = 0; g < G; ++g) gate[g] = kept.gate[g][k];
              const float q = CELL == GRU && NORM
                ? fmaf(gains[2 * HP + k], kept.normal[NORM ? G - 1 : 0][k], gains[G * HP + k]) : kept.q[k];
              cell_back(dh[k], dc[k], dz, d, gate, q, begins ? 0.f : kept.before[k], kept.after[k]);
              if (NORM) along += scale_back(d, own_dgains + k, gains + k, kept.normal, k);
            }
            if ((C > 1 || k) && k >= own) break;
#pragma unroll
            for (int g = 0; g < G; ++g) {
              float* to = da + (slice * G + g) * KP + j0 + k;
              if (NORM) *to = d[g];  // dn, which is not yet what the others want
              else send(to, d[g]);
              if (inside) z[row + g * H + k] = dz[g];
              if (inside && CELL == GRU && !NORM) a[row + g * H + k] = d[g];
            }
          }
        if constexpr (NORM) {
          if (active) send(parts + (slice * C + rank) * PARTS + c0 / 2, along);
          CLUSTER_BARRIER(8);
          if (inside) {
            const float e = add_parts(parts + slice * C * PARTS, C * PARTS) / (float)(G * H);
#pragma unroll
            for (int g = 0; g < G; ++g) {
              Pair d = {};
              float* dn = da + (slice * G + g) * KP + j0;
              if (active) {
                read(d, dn, own);
                d[0] = kept.inv * (d[0] - kept.normal[g][0] * e);
                d[1] = kept.inv * (d[1] - kept.normal[g][1] * e);
                send(dn, d, own);
              }
              write(a + row + g * H, d, own);
            }
          }
        }
        CLUSTER_BARRIER(6);
        fetch(i - 1);
        if (i > 0 || dinitial_h) {  // nobody asks for the gradient of the zeros before the first step
          float sum[R][2] = {};
          multiply_back(sum, da + k0, w);
#pragma unroll
          for (int r = 0; r < R; ++r) store2(sums + (slice * R + r) * HP + c0, sum[r]);
          BARRIER(7);
          if (active) {
            Pair through;
            add_slices(through, sums + slice * HP + c0, R * HP);
            dh[0] = fmaf(through[0], factor[0], dh[0]);
            dh[1] = fmaf(through[1], factor[1], dh[1]);
          }
        }
        if (C > 1) buffer = 1 - buffer;
      } else {
        fetch(i - 1);
      }
      if (begins) dh[0] = dh[1] = dc[0] = dc[1] = 0.f;
    }
    if (owns && dinitial_h) {
      write(dinitial_h + at, dh, own);
      if (CELL == LSTM) write(dinitial_c + at, dc, own);
    }
  }
  if constexpr (NORM) {
    Pair dgain[G] = {}, db[G] = {};
    normalise_back(memory, course, rank, own, z, products, g_xh, inverses + (long long)T * N, dgain, db);
    add_sums(shared, dgains, dgain, db, j0, own, sums_of_rows);
    if (C > 1) CLUSTER_BARRIER(11);  // the other blocks of the cluster have dz
  }
  if (dx) give_inputs(shared, course, losses, Inputs{factors, dx, inputs, adds, residual}, z, w_xh, rank);
}
