"""PyTorch: .pt, older pickles, Lightning's checkpoints, safetensors, reparametrised weights."""

import copy

import numpy as np
import safetensors.torch
import torch
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from benchmarks.imports.cases import Cases


class Model(torch.nn.Module):
    """A recurrent module and a Linear of its last state, or of all of them."""

    def __init__(self, kind, layers=1, directions=1, every=False, **options):
        super().__init__()
        bias = options.pop("head_bias", True)
        self.rnn = getattr(torch.nn, kind)(
            3, 4, layers, batch_first=True, bidirectional=directions == 2, **options
        )
        self.fc = torch.nn.Linear(self.rnn.proj_size or 4 * directions, 2, bias=bias)
        self.directions, self.every = directions, every

    def forward(self, x):
        """Predict."""
        hs, state = self.rnn(x)
        if self.every:
            return self.fc(hs)
        state = state[0] if isinstance(state, tuple) else state
        return self.fc(torch.cat(list(state[-self.directions :]), -1))


def predicted(model, dtype=torch.float32):
    """Return inputs and predictions."""
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 7, 3))).to(dtype)
    with torch.no_grad():
        return x.numpy(), model.eval()(x).numpy()


def make(folder):
    """Write the files."""
    torch.manual_seed(0)
    cases = Cases(folder, "torch")
    for kind in ("RNN", "GRU", "LSTM"):
        for layers, directions in ((1, 1), (2, 1), (1, 2), (2, 2)):
            model = Model(kind, layers, directions)
            path = cases.path(".pt")
            torch.save(model.state_dict(), path)
            cases.add(f"{kind} {layers}x{directions}, state_dict", path, *predicted(model))
    model = Model("GRU").double()
    path = cases.path(".pth")
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    cases.add("GRU float64, pickle of before 1.6", path, *predicted(model, torch.float64))
    model = Model("RNN", nonlinearity="relu", every=True)
    path = cases.path(".pt")
    torch.save({"epoch": 3, "model_state_dict": model.state_dict()}, path)
    cases.add(
        "RNN relu, every step, in a dict", path, *predicted(model),
        activation="relu", topology="many_to_many",
    )  # fmt: skip
    model = Model("LSTM", bias=False, head_bias=False)
    path = cases.path(".pt")
    torch.save(model.state_dict(), path)
    cases.add("LSTM, bias=False in both", path, *predicted(model))
    _of_lightning(cases)
    _safetensors(cases)
    _reparametrised(cases)
    _refused(cases)
    cases.write()


def _of_lightning(cases):
    """Write a checkpoint as Lightning does, with the optimiser and the loops in it."""
    try:
        import lightning
    except ImportError:
        return

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"hidden": 4})
            self.model = Model("LSTM", 2)

        def training_step(self, batch, _):
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 7, 3)))
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    module = Module()
    trainer.fit(module, data)
    path = cases.path(".ckpt")
    trainer.save_checkpoint(path)
    cases.add("LSTM 2x1, Lightning's checkpoint", path, *predicted(module.model))


def _safetensors(cases):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = Model("GRU", 2).to(dtype)
        path = cases.path(".safetensors")
        state = {f"module._orig_mod.{k}": v for k, v in model.state_dict().items()}
        safetensors.torch.save_file(state, path)
        name = str(dtype).removeprefix("torch.")
        cases.add(f"GRU 2x1, {name}, prefix module._orig_mod", path, *predicted(model.float()))
    model = Model("LSTM")
    path = cases.path(".npz")
    np.savez(path, **{k: v.numpy() for k, v in model.state_dict().items()})
    cases.add("LSTM, npz with PyTorch's names", path, *predicted(model))


def _reparametrised(cases):
    model = Model("LSTM")
    weight_norm(model.rnn, "weight_hh_l0")
    weight_norm(model.fc)
    model.rnn.parametrizations.weight_hh_l0.original0.data *= 1.3
    path = cases.path(".pt")
    torch.save(model.state_dict(), path)
    cases.add("LSTM, weight_norm (parametrized)", path, *predicted(model))
    model = Model("GRU")
    torch.nn.utils.weight_norm(model.rnn, "weight_ih_l0")
    path = cases.path(".pt")
    torch.save(model.state_dict(), path)
    cases.add("GRU, weight_norm (old)", path, *predicted(model))
    model = Model("RNN")
    prune.random_unstructured(model.rnn, "weight_hh_l0", 0.5)
    prune.random_unstructured(model.fc, "weight", 0.5)
    path = cases.path(".pt")
    torch.save(model.state_dict(), path)
    cases.add("RNN, pruned", path, *predicted(model))
    model = Model("GRU")
    spectral_norm(model.fc)
    path = cases.path(".pt")
    pair = predicted(model)
    torch.save(model.state_dict(), path)
    cases.add("GRU, spectral_norm of the Linear", path, *pair)
    model = Model("RNN")
    orthogonal(model.rnn, "weight_hh_l0")
    path = cases.path(".pt")
    torch.save(model.state_dict(), path)
    cases.add("RNN, orthogonal", path, refused="as an orthogonal weight")
    removed = copy.deepcopy(model)
    torch.nn.utils.parametrize.remove_parametrizations(removed.rnn, "weight_hh_l0")
    path = cases.path(".pt")
    torch.save(removed.state_dict(), path)
    cases.add("RNN, orthogonal, removed before", path, *predicted(removed))


def _refused(cases):
    def add(about, value, refused, save=torch.save):
        path = cases.path(".pt")
        save(value, path)
        cases.add(about, path, refused=refused)

    add("LSTM, proj_size=2", Model("LSTM", proj_size=2).state_dict(), "is a projection")
    two = torch.nn.ModuleDict({"a": torch.nn.LSTM(3, 4), "b": torch.nn.LSTM(4, 8)})
    state = {**two.state_dict(), "fc.weight": torch.ones(1, 8)}
    path = cases.path(".pt")
    torch.save(state, path)
    cases.add("LSTMs of unequal sizes", path, refused="8 hidden units", rnn="a, b")
    mlp = Model("GRU")
    mlp.fc = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    add("GRU and two Linears", mlp.state_dict(), "exactly one Linear or Dense is required, found 2")
    norm = Model("GRU")
    norm.norm = torch.nn.LayerNorm(4)
    add("GRU and a LayerNorm", norm.state_dict(), "part of a layer or batch normalisation")
    add("a whole module", torch.nn.LSTM(3, 4), "which no file of weights needs")
    add("TorchScript", torch.jit.script(torch.nn.Linear(3, 4)), "is a TorchScript archive",
        torch.jit.save)  # fmt: skip
    add("Linear alone", torch.nn.Linear(3, 4).state_dict(), "has no weights of an RNN")
