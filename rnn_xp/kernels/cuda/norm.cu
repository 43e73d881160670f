// Layer normalisation, see rnn_xp/cells/gates.py. The mean of c @ h over its G*H entries is that of
// c's columns, times h: the weights enter centred, c = w - mean(w), and so the products are. What is
// left are sums over a row's entries, that of squares forward and one more back:
//
//     a = c @ h      inv = 1 / sqrt(mean(a^2) + eps)      n = a inv      out = gain n
//     dn = gain dout      e = mean(dn n)      da = inv (dn - n e)      dgain = dout n
//
// The gradient dn - mean(dn) is not formed: dh = da @ c cancels its mean, and dw takes out that of dc.
//
// The recurrent product is normalised within the steps. That of the inputs is normalised before them,
// and its gradient taken after them, for all of a block's rows.

constexpr float EPS = 1e-5f;  // as in rnn_xp.kernels.portable.normalise
constexpr int CENTRE_COLUMNS = 32, CENTRE_SLICES = 8;

// The sum of `count` parts, a multiple of 4, in a fixed order.
__device__ __forceinline__ float add_parts(const float* parts, int count)
{
  float sum[4] = {};
#pragma unroll 4
  for (int k = 0; k < count; k += 4) {
    float part[4];
    load4(part, parts + k);
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[e] += part[e];
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

__device__ __forceinline__ float inverse(float squares, int width)
{
  return 1.f / sqrtf(squares / (float)width + EPS);
}

// Add over the columns of the block's own rows, SLICES rows at once: `share(t, n)` is a thread's share
// of a row, and `finish(t, n, sum)` is told the sum. parts: [2][SLICES][C][PARTS], zeros at first.
template <typename Share, typename Finish>
__device__ __forceinline__ void each_row(float* parts, const Course& course, int rank, Share share, Finish finish)
{
  const int pair = threadIdx.x % PAIRS, slice = threadIdx.x / PAIRS;
  int buffer = 0;
  for (int row0 = blockIdx.x / C * R; row0 < course.N; row0 += gridDim.x / C * R)
#pragma unroll 1
    for (int m0 = 0; m0 < course.length(row0) * R; m0 += SLICES) {
      const int m = m0 + slice, t = step_of(m), n = row_of(m, row0);
      const bool inside = t < course.length(n);
      float* sums = parts + (buffer * SLICES + slice) * C * PARTS;
      if (inside) send(sums + rank * PARTS + pair, share(t, n));
      CLUSTER_BARRIER(9);
      if (inside) finish(t, n, add_parts(sums, C * PARTS));
      buffer = 1 - buffer;  // another thread may still read
    }
}

// products (T, N, G*H): n, and z = gain n
__device__ __forceinline__ void normalise(float* parts, const Course& course, int rank, int own, float* products,
                                          float* z, const float* gain, float* inverses)
{
  const int j0 = rank * U + threadIdx.x % PAIRS * 2;
  const auto share = [&](int t, int n) {
    float squares = 0.f;
#pragma unroll
    for (int g = 0; g < G; ++g) {
      Pair a;
      read(a, products + course.row(t, n) * G * H + g * H + j0, own);
      squares = fmaf(a[0], a[0], fmaf(a[1], a[1], squares));
    }
    return squares;
  };
  each_row(parts, course, rank, share, [&](int t, int n, float squares) {
    const float inv = inverse(squares, G * H);
    if (j0 == 0) inverses[course.row(t, n)] = inv;
#pragma unroll
    for (int g = 0; g < G; ++g) {
      const long long at = course.row(t, n) * G * H + g * H + j0;
      Pair a, scale;
      read(a, products + at, own);
      read(scale, gain + g * H + j0, own);
#pragma unroll
      for (int k = 0; k < 2; ++k) a[k] *= inv, scale[k] *= a[k];
      write(products + at, a, own);
      write(z + at, scale, own);
    }
  });
}

// z (T, N, G*H) = da of dout; adds to the thread's dgain and db
__device__ __forceinline__ void normalise_back(float* parts, const Course& course, int rank, int own, float* z,
                                               const float* products, const float* gain, const float* inverses,
                                               Pair (&dgain)[G], Pair (&db)[G])
{
  const int j0 = rank * U + threadIdx.x % PAIRS * 2;
  Pair scale[G];
#pragma unroll
  for (int g = 0; g < G; ++g) read(scale[g], gain + g * H + j0, own);
  const auto share = [&](int t, int n) {
    float along = 0.f;
#pragma unroll
    for (int g = 0; g < G; ++g) {
      const long long at = course.row(t, n) * G * H + g * H + j0;
      Pair d, a;
      read(d, z + at, own);
      read(a, products + at, own);
#pragma unroll
      for (int k = 0; k < 2; ++k) along = fmaf(scale[g][k] * d[k], a[k], along);
    }
    return along;
  };
  each_row(parts, course, rank, share, [&](int t, int n, float along) {
    const float inv = inverses[course.row(t, n)], e = along / (float)(G * H);
#pragma unroll
    for (int g = 0; g < G; ++g) {
      const long long at = course.row(t, n) * G * H + g * H + j0;
      Pair d, a;
      read(d, z + at, own);
      read(a, products + at, own);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        dgain[g][k] = fmaf(d[k], a[k], dgain[g][k]);
        db[g][k] += d[k];
        d[k] = inv * (scale[g][k] * d[k] - a[k] * e);
      }
      write(z + at, d, own);
    }
  });
}

// ---- weights ----

struct Weight {
  const float* from;
  float* to;  // may be from
  int rows, columns, first_block;
};
struct WeightTable {
  Weight of[WEIGHTS];
};
static_assert(sizeof(WeightTable) == PLAN_WEIGHT_TABLE, "plan.py");

// c (rows, columns) = w - mean of each column, of many weights
extern "C" __global__ void centre(const __grid_constant__ WeightTable table, int count)
{
  SHARED_MEMORY(parts);  // [CENTRE_SLICES][CENTRE_COLUMNS]
  int k = 0;
  while (k + 1 < count && (int)blockIdx.x >= table.of[k + 1].first_block) ++k;
  const Weight& w = table.of[k];
  const int of_block = threadIdx.x % CENTRE_COLUMNS, slice = threadIdx.x / CENTRE_COLUMNS;
  const int column = (blockIdx.x - w.first_block) * CENTRE_COLUMNS + of_block;
  float sum = 0.f;
  if (column < w.columns)
#pragma unroll 8
    for (int j = slice; j < w.rows; j += CENTRE_SLICES) sum += w.from[(long long)j * w.columns + column];
  parts[threadIdx.x] = sum;
  BARRIER(16);
  float mean = 0.f;
#pragma unroll
  for (int s = 0; s < CENTRE_SLICES; ++s) mean += parts[s * CENTRE_COLUMNS + of_block];
  mean /= (float)w.rows;
  if (column < w.columns)
    for (int j = slice; j < w.rows; j += CENTRE_SLICES)
      w.to[(long long)j * w.columns + column] = w.from[(long long)j * w.columns + column] - mean;
}
