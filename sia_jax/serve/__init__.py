"""The OpenAI API over one engine: what stands on the wire, and the steering that it tells of."""
