"""Mistakes in the estimators, planted line by line, and each caught by a test that is named.

A mistake is a line of the source as it stands and as a tired engineer might have written it. The
module's functions are compiled anew with that one change, and the named test must then fail.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import types

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

import test_classifier
import test_estimators
import test_labeler
import test_members
import test_patches
from estimating import FEW_EPOCHS

pytestmark = FEW_EPOCHS

MODULES = ("recurrent", "members", "classification", "regression", "arrays", "labelling")
RECURRENT, TRAINED, CLASSES, NUMBERS, ARRAYS, STEPS = (
    f"rnn_xp.estimators.{name}" for name in MODULES
)
REGRESSOR, CLASSIFIER = test_estimators.TestRegressor, test_classifier.TestClassifier
SPLIT = test_classifier.TestEarlyStopping
LABELS, MASK, PATCHES = test_labeler.TestLabels, test_labeler.TestMask, test_patches.TestPatches
MEMBERS, ENDS = test_members.TestMembers, test_members.TestWarningOfTheEnd

MISTAKES = {
    "labels of the wrong column": (
        CLASSES, "index = np.searchsorted(known, labels)",
        "index = len(known) - 1 - np.searchsorted(known, labels)",
        CLASSIFIER.test_probabilities,
    ),
    "the least probable class": (
        ARRAYS, "np.argmax(to_numpy(probable), axis=-1)",
        "np.argmin(to_numpy(probable), axis=-1)",
        CLASSIFIER.test_probabilities,
    ),
    "probabilities that are not normalised": (
        ARRAYS, "return power / xp.sum(power, axis=-1, keepdims=True)", "return power",
        CLASSIFIER.test_probabilities,
    ),
    "probabilities normalised over the rows": (
        ARRAYS, "xp.sum(power, axis=-1, keepdims=True)", "xp.sum(power, axis=0, keepdims=True)",
        CLASSIFIER.test_probabilities,
    ),
    "classes of this call instead of the first": (
        CLASSES, "known = self.classes_ if go_on else np.unique", "known = np.unique",
        CLASSIFIER.test_batches_that_lack_a_class,
    ),
    "a split that ignores the classes": (
        CLASSES, "stratify=labels", "stratify=None",
        SPLIT.test_each_part_has_the_share_of_each_class,
    ),
    "held-out rows also trained on": (
        CLASSES, "return trained, len(parts[0])", "return data, len(labels)",
        SPLIT.test_held_out_samples_are_not_trained_on,
    ),
    "a split that ignores the random state": (
        CLASSES, "random_state=seed", "random_state=0",
        SPLIT.test_the_held_out_samples_follow_from_the_random_state,
    ),
    "classes= forgotten": (
        CLASSES, "np.unique(labels if classes is None else classes)", "np.unique(labels)",
        CLASSIFIER.test_batches_that_lack_a_class,
    ),
    "unknown labels taken for a neighbour": (
        CLASSES, "if not np.array_equal(known[", "if False and not np.array_equal(known[",
        CLASSIFIER.test_batches_that_lack_a_class,
    ),
    "weights of samples dropped by the classifier": (
        CLASSES, "return self._train(windows, sample_weight,",
        "return self._train(windows, None,",
        CLASSIFIER.test_weights_of_samples,
    ),
    "weights of samples dropped by the regressor": (
        NUMBERS, "return self._train(windows, sample_weight,",
        "return self._train(windows, None,",
        REGRESSOR.test_a_weight_of_two_is_a_row_twice,
    ),
    "weights that are negative": (
        ARRAYS, "ensure_non_negative=True", "ensure_non_negative=False",
        REGRESSOR.test_a_weight_of_two_is_a_row_twice,
    ),
    "partial_fit starts afresh": (
        TRAINED, "params=before.last_params if before else None", "params=None",
        REGRESSOR.test_epoch_by_epoch_is_the_same_training,
    ),
    "partial_fit forgets the solver's state": (
        TRAINED, "opt_state=before.opt_state if before else None", "opt_state=None",
        REGRESSOR.test_epoch_by_epoch_is_the_same_training,
    ),
    "warm_start ignored": (
        RECURRENT, "return (partial or self.warm_start) and", "return partial and",
        REGRESSOR.test_epoch_by_epoch_is_the_same_training,
    ),
    "the same minibatches in every later call": (
        TRAINED, "seed + (len(before.losses) if before else 0)", "seed",
        REGRESSOR.test_minibatches_of_later_epochs_are_in_another_order,
    ),
    "random_state ignored": (
        RECURRENT, "check_random_state(self.random_state)", "check_random_state(0)",
        REGRESSOR.test_it_is_fit,
    ),
    "the last instead of the best weights": (
        TRAINED, "result.params if best is None else best", "result.params",
        REGRESSOR.test_early_stopping_holds_out_the_last_windows,
    ),
    "the best training loss reported for the held-out one": (
        RECURRENT, "min(self.validation_curve_ or self.loss_curve_)", "min(self.loss_curve_)",
        REGRESSOR.test_early_stopping_holds_out_the_last_windows,
    ),
    "patience ignored": (
        RECURRENT, '"patience": None if partial else self.n_iter_no_change', '"patience": None',
        REGRESSOR.test_tolerance_ends_training,
    ),
    "tolerance ignored": (
        RECURRENT, '"tolerance": self.tol', '"tolerance": 0.0',
        REGRESSOR.test_tolerance_ends_training,
    ),
    "a batch of more rows than there are": (
        RECURRENT, "return min(self._auto_rows(rows), rows)", "return self._auto_rows(rows)",
        REGRESSOR.test_tolerance_ends_training,
    ),
    "features folded into steps": (
        RECURRENT, "self._network(x.shape[2] * self.patch_size_, outputs)",
        "self._network(self.patch_size_, outputs)",
        REGRESSOR.test_three_axes_are_features_at_each_step,
    ),
    "one output of several": (
        NUMBERS, "return out[:, 0] if self._flat else out", "return out[:, 0]",
        REGRESSOR.test_several_outputs,
    ),
    "a column where a vector was given": (
        NUMBERS, "return out[:, 0] if self._flat else out", "return out",
        REGRESSOR.test_three_axes_are_features_at_each_step,
    ),
    "the penalty on the weights forgotten": (
        RECURRENT, "weight_decay=self.alpha", "weight_decay=0.0",
        REGRESSOR.test_alpha_and_clipping_reach_the_solver,
    ),
    "clipping forgotten": (
        RECURRENT, "clip_norm=clip", "clip_norm=None",
        REGRESSOR.test_alpha_and_clipping_reach_the_solver,
    ),
    "the same seed for all networks": (
        TRAINED, "_train(net, data, *starts[k],", "_train(net, data, starts[0][0], starts[k][1],",
        MEMBERS.test_each_network_is_trained_from_its_own_seed,
    ),
    "only the first network predicts": (
        RECURRENT, "for params in self.networks_]", "for params in self.networks_[:1]]",
        MEMBERS.test_numbers_are_the_mean_of_the_networks,
    ),
    "values of networks added up": (
        NUMBERS, "sum(outs[1:], outs[0]) / len(outs)", "sum(outs[1:], outs[0])",
        MEMBERS.test_numbers_are_the_mean_of_the_networks,
    ),
    "outputs of networks averaged before they are probabilities": (
        CLASSES, "each = [softmax(logits) for logits in self._raw(X, lengths, method)]",
        "raw = self._raw(X, lengths, method); each = [softmax(sum(raw) / len(raw))]",
        MEMBERS.test_probabilities_are_the_mean_of_the_networks,
    ),
    "nobody is told that a training failed": (
        TRAINED, "ending.set()", "pass", MEMBERS.test_a_training_that_fails_ends_the_others,
    ),
    "networks go on from the first one": (
        TRAINED, "_train(net, data, *starts[k],", "_train(net, data, starts[k][0], starts[0][1],",
        MEMBERS.test_each_network_goes_on_by_itself,
    ),
    "a constant rate in place of one that falls": (
        RECURRENT, "optimizer = self._scheduled(", "_ = self._scheduled(",
        test_members.TestSchedule.test_the_rate_falls_over_all_epochs,
    ),
    "a rate that falls anew where fit goes on": (
        RECURRENT, "done = len(before[0].losses) if before[0] else 0", "done = 0",
        test_members.TestSchedule.test_it_goes_on_where_fit_does,
    ),
    "a patch too few": (
        ARRAYS, "lengths = (ends + (size - 1)) // size", "lengths = ends // size",
        PATCHES.test_sequences_of_unequal_length,
    ),
    "the padding of a row in its last patch": (
        ARRAYS, "x = xp.where(inside[:, :, None], x, xp.zeros_like(x))", "",
        PATCHES.test_sequences_of_unequal_length,
    ),
    "patches of held-out rows forgotten": (
        RECURRENT, 'held_out |= self._seen(held_out["x"], held_out["lengths"])', "pass",
        PATCHES.test_held_out_rows_have_patches_as_well,
    ),
    "steps without a label are learned": (
        STEPS, "counted.astype(np.float64)", "np.ones_like(counted, dtype=np.float64)",
        MASK.test_labels_that_do_not_count_are_not_learned,
    ),
    "the mask of a score ignored": (
        STEPS, "labels, counted = _labels_of(y, mask, ends,",
        "labels, counted = _labels_of(y, None, ends,",
        MASK.test_nor_are_they_scored,
    ),
    "labels after the ends of sequences": (
        STEPS, "inside = np.arange(shape[1]) < ends[:, None]",
        "inside = np.arange(shape[1]) <= ends[:, None]",
        LABELS.test_each_form_gives_the_same_labels,
    ),
    "sequences of predictions with their padding": (
        STEPS, "steps[i, : int(end), ...]", "steps[i]",
        LABELS.test_each_form_gives_the_same_labels,
    ),
    "labels of the wrong class at each step": (
        STEPS, "target[counted] = index", "target[counted] = len(known) - 1 - index",
        LABELS.test_it_learns,
    ),
    "a warning for one epoch of partial_fit": (
        RECURRENT, "if not partial and self.n_iter_no_change is not None:",
        "if self.n_iter_no_change is not None:",
        ENDS.test_nothing_is_said_of_what_was_asked_for,
    ),
    "a warning although patience ended the training": (
        RECURRENT, "sum(not reason for reason in stopped)", "len(stopped)",
        ENDS.test_nothing_is_said_where_patience_ends_the_training,
    ),
}  # fmt: skip


@contextlib.contextmanager
def planted(name, old, new):
    """Give the functions and methods of a module the code of its source with one change."""
    module = importlib.import_module(name)
    source = inspect.getsource(module)
    assert old in source, f"{old!r} is not in {name} any more"
    changed = types.ModuleType(name)
    exec(source.replace(old, new), changed.__dict__)
    with pytest.MonkeyPatch.context() as patch:
        for key, function in functions(module).items():
            patch.setattr(function, "__code__", functions(changed)[key].__code__)
        yield


def functions(module):
    """The functions and methods of a module by name, but for those that call super()."""
    parts = {"": vars(module)}
    for name, thing in vars(module).items():
        if inspect.isclass(thing) and thing.__module__ == module.__name__:
            parts[f"{name}."] = vars(thing)
    return {
        prefix + name: function
        for prefix, part in parts.items()
        for name, function in part.items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and "__class__" not in function.__code__.co_freevars
    }


def run(test):
    """Run a test method that takes no fixture but monkeypatch."""
    owner = getattr(sys.modules[test.__module__], test.__qualname__.partition(".")[0])
    with pytest.MonkeyPatch.context() as patch:
        fixtures = [patch] if "monkeypatch" in inspect.signature(test).parameters else []
        getattr(owner(), test.__name__)(*fixtures)


TESTS = {test: module for module, _, _, test in MISTAKES.values()}


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.__name__)
def test_without_a_mistake_nothing_is_caught(test):
    with planted(TESTS[test], "return", "return"):
        run(test)


@pytest.mark.parametrize("name", MISTAKES, ids=lambda name: name.replace(" ", "-"))
def test_every_mistake_is_caught(name):
    module, old, new, test = MISTAKES[name]
    with planted(module, old, new), pytest.raises((Exception, pytest.fail.Exception)):
        run(test)
