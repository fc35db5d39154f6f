"""HTTP over an engine: the OpenAI API, with steering in the request and in the answer."""
