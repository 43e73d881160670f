// Layer normalisation, see rnn_xp/cells/gates.py. The mean of c @ h over its G*H entries is that of
// c's columns, times h: the weights enter centred, c = w - mean(w), and so the products are. What is
// left are sums over a row's entries, that of squares forward and one more back:
//
//     a = c @ h      inv = 1 / sqrt(mean(a^2) + eps)      n = a inv      out = gain n
//     dn = gain dout      e = mean(dn n)      da = inv (dn - n e)      dgain = dout n
//
// The gradient dn - mean(dn) is not formed: dh = da @ c cancels its mean, and dw takes out that of dc.

constexpr float EPS = 1e-5f;  // as in rnn_xp.kernels.portable.normalise
constexpr int ROW_THREADS = 128;
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

// ---- the inputs' products of all rows, a block for each row; and weights ----

// a (M, width) = gain n
extern "C" __global__ void normalise(float* a, const float* gain, int width)
{
  SHARED_MEMORY(parts);
  const int tid = threadIdx.x;
  float* own = a + (long long)blockIdx.x * width;
  float squares = 0.f;
  for (int j = tid; j < width; j += ROW_THREADS) squares = fmaf(own[j], own[j], squares);
  parts[tid] = squares;
  BARRIER(9);
  const float inv = inverse(add_parts(parts, ROW_THREADS), width);
  for (int j = tid; j < width; j += ROW_THREADS) own[j] = gain[j] * (own[j] * inv);
}

// a (M, width) = da, and dout = dgain of each row
extern "C" __global__ void normalise_back(float* a, float* dout, const float* gain, int width)
{
  SHARED_MEMORY(parts);
  const int tid = threadIdx.x;
  float *own = a + (long long)blockIdx.x * width, *own_d = dout + (long long)blockIdx.x * width;
  float squares = 0.f, along = 0.f;
  for (int j = tid; j < width; j += ROW_THREADS) {
    squares = fmaf(own[j], own[j], squares);
    along = fmaf(gain[j] * own_d[j], own[j], along);
  }
  parts[tid] = squares;
  parts[ROW_THREADS + tid] = along;
  BARRIER(10);
  const float inv = inverse(add_parts(parts, ROW_THREADS), width);
  const float e = add_parts(parts + ROW_THREADS, ROW_THREADS) * inv / (float)width;
  for (int j = tid; j < width; j += ROW_THREADS) {
    const float n = own[j] * inv;
    own[j] = inv * (gain[j] * own_d[j] - n * e);
    own_d[j] *= n;
  }
}

// c (rows, columns) = w - mean of each column; c may be w
extern "C" __global__ void centre(const float* w, float* c, int rows, int columns)
{
  SHARED_MEMORY(parts);  // [CENTRE_SLICES][CENTRE_COLUMNS]
  const int of_block = threadIdx.x % CENTRE_COLUMNS, slice = threadIdx.x / CENTRE_COLUMNS;
  const int column = blockIdx.x * CENTRE_COLUMNS + of_block;
  float sum = 0.f;
  if (column < columns)
#pragma unroll 8
    for (int j = slice; j < rows; j += CENTRE_SLICES) sum += w[(long long)j * columns + column];
  parts[threadIdx.x] = sum;
  BARRIER(11);
  float mean = 0.f;
#pragma unroll
  for (int s = 0; s < CENTRE_SLICES; ++s) mean += parts[s * CENTRE_COLUMNS + of_block];
  mean /= (float)rows;
  if (column < columns)
    for (int j = slice; j < rows; j += CENTRE_SLICES)
      c[(long long)j * columns + column] = w[(long long)j * columns + column] - mean;
}
