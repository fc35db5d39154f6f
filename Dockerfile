# A server of steered models; docs/serving.md says how to run it.
#
#   docker build -t sia .                               on a CPU
#   docker build -t sia --build-arg JAX=cuda12 .        on GPUs; JAX=tpu: on a TPU
#   docker run --init -p 127.0.0.1:8000:8000 sia --open
#
# Without --policy it serves the embedded models. Options of `sia serve` follow the name of the image.

FROM python:3.11-slim

# An extra of JAX: cpu, cuda12, cuda13 or tpu.
ARG JAX=cpu

WORKDIR /build
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE constraints.txt ./
COPY sia_jax ./sia_jax
COPY decode ./decode
COPY train ./train
COPY configs ./configs
RUN pip install --no-cache-dir -c constraints.txt ".[serve]" "jax[${JAX}]" && rm -rf /build

# What runs has no rights, and two folders: of what it compiles, and of what it fetches from the Hub. They are there
# before a volume is mounted on one, which then belongs to the same user.
WORKDIR /
RUN useradd --create-home --uid 10001 sia && install -d -o sia -g sia /home/sia/compiled /home/sia/hub
USER sia
WORKDIR /home/sia
ENV SIA_JAX_COMPILATION_CACHE=/home/sia/compiled HF_HOME=/home/sia/hub

EXPOSE 8000
# Not before the models are loaded and compiled.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]

# Keys come in the variable SIA_JAX_API_KEYS, or as --keys FILE; --open is for a port that only this machine sees.
ENTRYPOINT ["sia", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD []
