"""Files of others: readers of each kind of file, and what makes a network of their content.

::

    file --kind by content--> arrays by name --names of a library--> Stack --assemble--> Network
             zipped  pickled          names, dialects                                     params
             safetensors  npy         keras: with its description                         assumed
             msgpack  hdf5            graph: ONNX

A reader knows a format and nothing of networks; `names` and `dialects` know how libraries name and
lay out weights; `keras` reads a description of a model and `graph` a graph. `load` is the door.
"""

__all__: list[str] = []
