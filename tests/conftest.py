"""Eight fake CPU devices for the whole suite, set before JAX starts; single-device tests use the first."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
