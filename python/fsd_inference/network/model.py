"""`Network`, a sequence of layers that are held in memory, or read or generated on access."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from numpy.typing import ArrayLike, NDArray

from fsd_inference.errors import InputError
from fsd_inference.markup import facts_table
from fsd_inference.network.checks import shown
from fsd_inference.network.fidelity import Check
from fsd_inference.network.file_format import LayersInFiles, write_network
from fsd_inference.network.importing.layers import Activations, layers_from_matrices
from fsd_inference.network.importing.lowering import MOST_CONNECTIONS
from fsd_inference.network.importing.problems import listed
from fsd_inference.network.importing.sklearn import layers_from_estimator
from fsd_inference.network.labels import checked_labels
from fsd_inference.network.layer import Layer
from fsd_inference.network.output_function import OutputFunction, checked_output
from fsd_inference.network.source import LayersInMemory, LayerSource, network_digest


class Network:
    """A sparse neural network.

    Networks may be larger than memory: iterate over the layers, or call ``network.layer(k)``, and keep one at a time.

    Parameters
    ----------
    layers : iterable of Layer
        At least one layer; each takes as many inputs as the previous one has outputs.
    name : str, optional
        Display name; not part of `digest`.
    labels : array_like, shape (n_out,), optional
        What each output of the last layer stands for: strings, numbers or booleans; not part of `digest`.
    output : OutputFunction, optional
        Function of the scores of each sample, the outputs of the last layer; not part of `digest`.

    Raises
    ------
    InputError
        If there is no layer, an item is not a layer, two consecutive layers do not fit, or labels or output function
        do not fit the last layer.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> hidden = fsd.Layer([[1.0, 0.0, 2.0], [0.0, -1.0, 0.0]], bias=0.0)
    >>> output = fsd.Layer([[1.0, 1.0]], bias=[0.5], activation="identity")
    >>> network = fsd.Network([hidden, output], name="tiny")
    >>> network.widths
    (3, 2, 1)
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        *,
        name: str = "network",
        labels: ArrayLike | None = None,
        output: OutputFunction | None = None,
    ) -> None:
        if not isinstance(layers, Iterable):
            raise InputError(f"a network is made of layers, such as Network([layer]), not of {shown(layers)}")
        held = tuple(layers)
        if not held:
            raise InputError("a network needs at least one layer")
        for k, layer in enumerate(held):
            if not isinstance(layer, Layer):
                raise InputError(f"layer {k} of a network must be a Layer, not {shown(layer)}")
        if not isinstance(name, str):
            raise InputError(f"the name of a network must be text, not {shown(name)}")
        for k, (before, after) in enumerate(itertools.pairwise(held)):
            if before.shape[0] != after.shape[1]:
                raise InputError(
                    f"layer {k + 1} takes {after.shape[1]} inputs, but layer {k} has {before.shape[0]} outputs"
                )
        self._source: LayerSource = LayersInMemory(held)
        self._name = name
        self._origin: str | None = None
        self._checked: Check | None = None
        self._labels = None if labels is None else checked_labels(labels, self.widths[-1])
        self._output = checked_output(output, self.widths[-1])

    @classmethod
    def from_matrices(
        cls,
        weights: Iterable[Any],
        biases: Iterable[ArrayLike | None] | None = None,
        activations: Activations = None,
        *,
        name: str = "network",
        labels: ArrayLike | None = None,
        output: OutputFunction | None = None,
    ) -> Network:
        """Build a network from one weight matrix per layer.

        Parameters
        ----------
        weights : iterable of sparse arrays or array_likes, shape (n_out, n_in)
            Rows are outputs, columns are inputs: layer k computes ``activation(weights[k] @ x + biases[k])``. Values
            are treated as by `Layer`: rounded to float32, duplicates summed; explicit zeros of a sparse array remain
            connections.
        biases : iterable of array_like or None, optional
            One per layer, of shape (n_out,), (1,) or (); None means 0.
        activations : Activation, str or sequence of them, optional
            One for all layers, or one per layer; defaults to relu, with identity for the last layer.
        name : str, optional
            Display name.
        labels : array_like, shape (n_out,), optional
            What each output of the last layer stands for.
        output : OutputFunction, optional
            Function of the scores of each sample, the outputs of the last layer.

        Raises
        ------
        InputError
            If the widths of consecutive layers differ, or a matrix cannot be a layer; lists all problems, with output
            and input of a value that is not finite.

        Examples
        --------
        >>> import fsd_inference as fsd
        >>> network = fsd.Network.from_matrices([[[1, 0, 2], [0, -1, 0]], [[1, 1]]], biases=[None, [0.5]])
        >>> list(network)
        [Layer(2 x 3, 3 connections, relu), Layer(1 x 2, 2 connections, identity)]
        """
        return cls(layers_from_matrices(weights, biases, activations), name=name, labels=labels, output=output)

    @classmethod
    def from_sklearn(cls, estimator: Any, *, name: str = "network") -> Network:
        """Build a network from a fitted multilayer perceptron of scikit-learn.

        - A classifier predicts ``network.labels[outputs.argmax(axis=1)]``; `labels` are its ``classes_``. Its output
          function is softmax, so that the outputs are ``predict_proba``. With two classes the estimator has one score;
          the network has a second one in front of it, which is always 0.
        - A multilabel classifier predicts the labels whose outputs, which are ``predict_proba``, are above 0.5.
        - A regressor predicts the outputs; `labels` is None.

        Weights are rounded to float32, so predictions can differ where two outputs are almost equal.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            Fitted. Zero weights are dropped. Pickled estimators are not read from files, because loading a pickle can
            run any code.
        name : str, optional
            Display name.

        Raises
        ------
        InputError
            For any other estimator, or one that is not fitted, or has another output activation, such as exp.

        Examples
        --------
        >>> import fsd_inference as fsd
        >>> from sklearn.neural_network import MLPClassifier
        >>> estimator = MLPClassifier((4,), solver="lbfgs", random_state=0)
        >>> estimator = estimator.fit([[0, 0], [0, 1], [4, 0], [4, 1]], ["low", "low", "high", "high"])
        >>> fsd.Network.from_sklearn(estimator).labels
        array(['high', 'low'], dtype='<U4')
        """
        layers, labels, output = layers_from_estimator(estimator)
        network = cls(layers, name=name, labels=labels, output=output)
        network._origin = f"scikit-learn {type(estimator).__name__}"
        return network

    @classmethod
    def from_torch(
        cls, module: Any, example: Any, *, name: str = "network", most_connections: int = MOST_CONNECTIONS
    ) -> Network:
        """Build a network from a PyTorch module, through ``torch.export``.

        A softmax, log-softmax, argmax or top-k over all outputs at the end becomes `output`. Weights of any type are
        rounded to float32, in which samples are computed. Weights that pruning has set to zero cost nothing.

        Parameters
        ----------
        module : torch.nn.Module
            In evaluation mode, with one tensor as its input.
        example : torch.Tensor or tuple of one
            Samples of the shape that the module takes, at least two: with one, the module must not depend on there
            being one.
        name : str, optional
            Display name.
        most_connections : int, optional
            How many connections the network may have; convolutions have one for each weight and position.

        Raises
        ------
        SettingError
            If PyTorch is not installed.
        InputError
            If PyTorch cannot export the module, or it has operators that cannot be imported; lists all of them.
        """
        from fsd_inference.network.importing.torch_import import torch_module  # noqa: PLC0415 - few networks need it

        found = torch_module(module, example, most_connections)
        held = LayersInMemory(found.layers)
        return cls.from_source(held, name=name, origin=found.origin, output=found.output)

    @classmethod
    def from_source(
        cls,
        source: LayerSource,
        *,
        name: str = "network",
        origin: str | None = None,
        output: OutputFunction | None = None,
    ) -> Network:
        """Return a network that gets its layers from `source` on each access, and does not cache them."""
        if not isinstance(source, LayerSource):
            raise InputError(f"the source of a network must be a LayerSource, not {shown(source)}")
        network = cls.__new__(cls)
        network._source = source
        network._name = name
        network._origin = origin
        network._checked = None
        network._labels = None
        network._output = output
        return network

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """Open a stored network; each layer is read, and its digest verified, on access.

        Parameters
        ----------
        path : path-like
            The directory written by `save`.

        Raises
        ------
        FileFormatError
            If the network is missing, truncated or damaged; damage within a layer is found when that layer is read.
        """
        source = LayersInFiles(path)
        network = cls.from_source(source, name=source.name, origin=source.origin, output=source.output)
        network._checked = source.check
        network._labels = source.labels
        return network

    def save(
        self,
        path: str | os.PathLike[str],
        progress: Callable[[int], object] | None = None,
        *,
        check: Check | None = None,
    ) -> None:
        """Write the network to a directory, layer by layer; the directory appears once it is complete.

        Parameters
        ----------
        path : path-like
            The directory to create; a network that is already there is replaced.
        progress : callable, optional
            Called after each layer with the number of layers written.
        check : Check, optional
            The result of comparing the network with the model that it was imported from, to be stored with it.

        Raises
        ------
        InputError
            If `path` holds anything but a network, or cannot be written.
        """
        write_network(
            path,
            self._name,
            self,
            progress,
            origin=self._origin,
            check=check or self._checked,
            labels=self._labels,
            output=self._output,
        )

    def with_layers(self, layers: Iterable[Layer], note: str) -> Network:
        """Return a network of other layers with the name, labels and output function of this one.

        Parameters
        ----------
        layers : iterable of Layer
            As many outputs as this network has.
        note : str
            What was done, which `origin` tells after what the network was imported from.
        """
        network = Network(layers, name=self._name, labels=self._labels, output=self._output)
        network._origin = "; ".join(filter(None, [self._origin, note]))
        return network

    @property
    def name(self) -> str:
        """Display name."""
        return self._name

    @property
    def origin(self) -> str | None:
        """What the network was imported from and how it was pruned; None if neither."""
        return self._origin

    @property
    def checked(self) -> Check | None:
        """How the network was compared with the model that it was imported from; None if that is not stored."""
        return self._checked

    @property
    def labels(self) -> NDArray[Any] | None:
        """What each output of the last layer stands for, shape (n_out,), read-only; None if unknown."""
        return self._labels

    @property
    def output(self) -> OutputFunction | None:
        """Function of the scores of each sample, the outputs of the last layer; None if the scores are the answer."""
        return self._output

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of features, then the number of neurons of each layer."""
        return self._source.widths

    @property
    def described_layers(self) -> str:
        """Number and widths of the layers as text."""
        low, high = min(self.widths), max(self.widths)
        width = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        return f"{len(self):,}, {width} wide; {self.widths[0]:,} features, {self.widths[-1]:,} outputs"

    @cached_property
    def connections(self) -> int:
        """Number of connections of all layers."""
        return self._source.connections()

    def sizes(self) -> Sequence[tuple[int, int]]:
        """Return (connections, stored weights) of each layer; a single weight is stored if all are equal.

        For a stored network no layer is read.
        """
        return self._source.sizes()

    @cached_property
    def digest(self) -> bytes:
        """Digest of 16 bytes over the content of all layers, independent of name and storage."""
        return network_digest(self._source.layer_digests())

    def layer(self, index: int) -> Layer:
        """Return layer `index`, counted from 0; `IndexError` if there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f"the network has layers 0 to {len(self) - 1}, not {index}")
        return self._source.layer(index)

    def __len__(self) -> int:
        return len(self.widths) - 1

    def __iter__(self) -> Iterator[Layer]:
        return (self._source.layer(k) for k in range(len(self)))

    def _repr_html_(self) -> str:
        rows = [
            ("layers", self.described_layers),
            ("output function", "" if self.output is None else str(self.output)),
            ("labels", "" if self.labels is None else listed([str(label) for label in self.labels])),
            ("origin", self.origin or ""),
        ]
        return facts_table(f"Network: {self.name}", [row for row in rows if row[1]])

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {len(self)} layers, widths {min(self.widths)} to {max(self.widths)})"
