"""Layer 2: a Llama checkpoint directory -> text, through code compiled from scalar operators.

    config.json -> LlamaConfig      tokenizer.json -> Tokenizer      *.safetensors -> LlamaWeights
    prompt -> tokens -> Engine.forward -> logits -> Sampler -> tokens -> text
"""
