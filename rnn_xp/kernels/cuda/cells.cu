// The cells, for one row and column; steps are numbered as in rnn_xp/cells.

__device__ __forceinline__ float sigmoid(float z) { return 0.5f * tanhf(0.5f * z) + 0.5f; }

// z (G): the input's product with its bias, which becomes the gates. a (G): the recurrent product,
// of the GRU with b_hn in its last. Returns h_t; c becomes c_t.
__device__ __forceinline__ float cell(float (&z)[G], const float (&a)[G], float h, float& c)
{
  if constexpr (CELL == GRU) {
    const float r = sigmoid(z[0] + a[0]), u = sigmoid(z[1] + a[1]);  // 3; u is the cell's z
    const float n = tanhf(fmaf(r, a[2], z[2]));                      // 4
    z[0] = r; z[1] = u; z[2] = n;
    return (1.f - u) * n + u * h;                                    // 5
  } else if constexpr (CELL == LSTM) {
    const float i = sigmoid(z[0] + a[0]), f = sigmoid(z[1] + a[1]);  // 3
    const float g = tanhf(z[2] + a[2]), o = sigmoid(z[3] + a[3]);
    z[0] = i; z[1] = f; z[2] = g; z[3] = o;
    c = f * c + i * g;                                               // 4
    return o * tanhf(c);                                             // 5
  } else {
    const float p = z[0] + a[0];                                     // 2
    if (CELL == RNN_RELU) return p <= 0.f ? 0.f : p;                 // 3; a NaN stays one
    return tanhf(p);                                                 // 3
  }
}

// dh_t to the gradients dz (G) of the input's product and da (G) of the recurrent one. `gate` is
// what `cell` left, q the GRU's product, and before and after are h_{t-1} and h_t, of the LSTM
// c_{t-1} and c_t. Leaves in dh the share of dh_{t-1} that takes no product, and in dc dc_{t-1}.
__device__ __forceinline__ void cell_back(float& dh, float& dc, float (&dz)[G], float (&da)[G],
                                          const float (&gate)[G], float q, float before, float after)
{
  if constexpr (CELL == GRU) {
    const float r = gate[0], u = gate[1], n = gate[2];
    const float dn = dh * (1.f - u), du = dh * (before - n);         // 5
    dz[2] = dn * (1.f - n * n);                                      // 4
    dz[0] = dz[2] * q * r * (1.f - r);                               // 3
    dz[1] = du * u * (1.f - u);
    da[0] = dz[0]; da[1] = dz[1]; da[2] = dz[2] * r;
    dh = dh * u;                                                     // 5
  } else if constexpr (CELL == LSTM) {
    const float i = gate[0], f = gate[1], g = gate[2], o = gate[3], tanh_c = tanhf(after);
    dz[3] = dh * tanh_c * o * (1.f - o);                             // 5, 3
    dc += dh * o * (1.f - tanh_c * tanh_c);                          // 5
    dz[0] = dc * g * i * (1.f - i);                                  // 4, 3
    dz[1] = dc * before * f * (1.f - f);
    dz[2] = dc * i * (1.f - g * g);
    dc = dc * f;                                                     // 4
    dh = 0.f;
#pragma unroll
    for (int k = 0; k < G; ++k) da[k] = dz[k];
  } else {
    // Where h is NaN, relu lets the gradient pass: it must not look like an idle unit.
    dz[0] = CELL == RNN_TANH ? dh * (1.f - after * after) : after <= 0.f ? 0.f : dh;  // 3
    da[0] = dz[0];
    dh = 0.f;
  }
}
