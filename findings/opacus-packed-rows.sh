#!/usr/bin/env bash
# opacus 1.6.0, torch 2.13.0
#
# Expected: `grad_sample[n]` of a recurrent weight is the gradient of the n-th row of the batch,
# also when the batch is packed with enforce_sorted=False: outputs and states come back in the
# caller's order, so should the gradients.
#
# Seen: outputs, states and the sum of all per-sample gradients are right, but the rows of
# `grad_sample` of DPRNN, DPGRU and DPLSTM lie in the order of falling length. The linear layer
# behind them keeps the caller's order, so row n of one model mixes two different sequences.
#
# Why it matters: norms and influences per sequence are read off the wrong sequence, and the norm
# over all layers of "one sample" belongs to none. With lengths sorted beforehand all is well.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile torch==2.13.0 opacus==1.6.0 numpy==2.4.6

"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from opacus import GradSampleModule
from opacus.layers import DPGRU, DPLSTM, DPRNN
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.rnn, self.out = layer(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        state = self.rnn(packed)[1]
        return self.out((state[0] if isinstance(state, tuple) else state)[-1])


def close(a, b):
    return torch.allclose(a, b, atol=1e-6)


for layer in (DPRNN, DPGRU, DPLSTM):
    for lengths in ([2, 5, 3, 4], [5, 4, 3, 2]):
        torch.manual_seed(1)
        net, x, lens = Net(layer), torch.randn(4, 5, 3), torch.tensor(lengths)
        alone = [torch.autograd.grad(net(x[n : n + 1], lens[n : n + 1]).square().sum(),
                                     list(net.parameters())) for n in range(4)]
        alone = {k: torch.stack(g) for (k, _), g in zip(net.named_parameters(), zip(*alone))}
        wrapped = GradSampleModule(net, loss_reduction="sum")
        wrapped(x, lens).square().sum().backward()
        falling = torch.argsort(lens, descending=True)
        for name, p in net.named_parameters():
            assert close(p.grad, alone[name].sum(0)), name
            if name.startswith("out"):
                assert close(p.grad_sample, alone[name]), name
            else:
                assert close(p.grad_sample, alone[name][falling]), name
                assert close(p.grad_sample, alone[name]) == (lengths == [5, 4, 3, 2]), name
        print(layer.__name__, lengths, "rows of grad_sample belong to", falling.tolist())
PY
