#!/bin/bash
# What one would guess: a LoRA on linear1 and linear2 of torch.nn.TransformerEncoderLayer acts in eval() as it does in train().
# What is true (peft 0.21.2, torch 2.15.0), without a word: in eval() it does nothing, to the last bit. torch's fast path hands
#   `self.linear1.weight` to one fused kernel and never calls the layer; peft's wrapper answers `weight` with that of the base. So it is
#   for DoRA and for peft's LoRA of self_attn, with norm_first, masks, nested tensors, bfloat16 and autocast for CPUs, and also with
#   gradients on, since the base is frozen.
#   The LoRA acts where torch leaves the fast path: batch_first=False (torch's default), bias=False, an odd number of heads, an activation
#   other than relu and gelu, one picture without a batch, autocast for CUDA, a forward hook; and, with gradients on, an input or a norm
#   that is trained as well. Under no_grad() those two do not help.
# Date: 2026-11-30. Source: this run, on a CPU; torch/nn/modules/transformer.py (TransformerEncoderLayer.forward), peft/tuners/tuners_utils.py
#   (BaseTunerLayer.weight). torch documents the fast path, and that it skips modules is known of hooks (pytorch/pytorch #128413).
# Why it matters: the loss falls in train(), validation says the same number after every epoch, and a scorer or captioner on top of a
#   picture encoder is served without its LoRA: from_pretrained puts a model in eval(). Call torch.backends.mha.set_fastpath_enabled(False),
#   or merge_adapter() or merge_and_unload() before eval().
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q torch==2.15.0 peft==0.21.2 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
cd "$place"
export HF_HOME="$place/cache" HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
venv/bin/python - 2> log <<'PYTHON' || { tail -5 log; exit 1; }
import contextlib
import warnings

import peft
import torch
from torch import nn

print("peft", peft.__version__, "torch", torch.__version__.split("+")[0])
torch.set_num_threads(1)
torch.manual_seed(0)
pictures = torch.randn(3, 5, 16)
padding = torch.zeros(3, 5, dtype=torch.bool)
padding[1, 3:] = True
causal = nn.Transformer.generate_square_subsequent_mask(5)
linears = ["linear1", "linear2"]


def model(layers=0, targets=linears, width=16, heads=4, dora=False, saved=None, **arguments):
    """One layer, or an encoder of several, with an adapter that is not zero."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, heads, 32, **{"batch_first": True, "dropout": 0.0, **arguments})
    net = nn.Sequential(nn.TransformerEncoder(layer, layers, enable_nested_tensor=not layer.norm_first) if layers else layer)
    config = peft.LoraConfig(r=4, target_modules=targets, use_dora=dora, modules_to_save=saved, init_lora_weights=False)
    return peft.get_peft_model(net, config)


@contextlib.contextmanager
def cuda_autocast():  # what torch.autocast("cuda") sets, on a machine without CUDA
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)


def nested(net):
    rows = torch.nested.nested_tensor([pictures[0], pictures[1, :3]])
    return torch.cat(list(net(rows).unbind()))


def under(context, net):
    with context:
        return net(pictures).float()


def effect(net, run, gradients):
    """How much the adapter changes the output at most."""
    with torch.set_grad_enabled(gradients):
        with net.disable_adapter():
            base = run(net)
        return float((run(net) - base).detach().abs().max())


def plain(net):
    return net(pictures)


def inner(net, **masks):
    return net.base_model.model[0](pictures, **masks)


def trained_input(net):
    return net(pictures.clone().requires_grad_())


silu = nn.functional.silu
recorded = warnings.catch_warnings(record=True)
said = recorded.__enter__()
warnings.simplefilter("always")
hooked = model()
hooked.base_model.model[0].register_forward_hook(lambda *_: None)
cases = {  # what is run, and whether the LoRA acts in eval() with gradients on and under no_grad()
    "a layer": (model(), plain, False, False),
    "an encoder of two layers": (model(2), plain, False, False),
    "norm_first=True": (model(norm_first=True), plain, False, False),
    "activation='gelu'": (model(activation="gelu"), plain, False, False),
    "a causal mask": (model(2), lambda net: inner(net, mask=causal, is_causal=True), False, False),
    "a padding mask": (model(2), lambda net: inner(net, src_key_padding_mask=padding)[~padding], False, False),
    "a nested tensor": (model(), nested, False, False),
    "bfloat16": (model().to(torch.bfloat16), lambda net: net(pictures.bfloat16()).float(), False, False),
    "autocast for CPUs": (model(), lambda net: under(torch.autocast("cpu", torch.bfloat16), net), False, False),
    "inference_mode": (model(), lambda net: under(torch.inference_mode(), net), False, False),
    "DoRA": (model(dora=True), plain, False, False),
    "self_attn as target": (model(targets=["self_attn"]), plain, False, False),
    "input that is trained": (model(), trained_input, True, False),
    "norm2 trained as well": (model(saved=["norm2"]), plain, True, False),
    "autocast for CUDA": (model(), lambda net: under(cuda_autocast(), net), True, True),
    "batch_first=False": (model(batch_first=False), plain, True, True),
    "bias=False": (model(bias=False), plain, True, True),
    "activation=silu": (model(activation=silu), plain, True, True),
    "three heads": (model(width=15, heads=3), lambda net: net(pictures[..., :15]), True, True),
    "one without a batch": (model(), lambda net: net(pictures[0]), True, True),
    "a forward hook": (hooked, plain, True, True),
}
seen = {}
print("how much the LoRA changes the output, at most:")
for name, (net, run, *_) in cases.items():
    trained = None if run is nested else effect(net.train(), run, True)  # torch refuses nested tensors in train()
    found = [effect(net.eval(), run, gradients) for gradients in (True, False)]
    assert trained is None or trained > 0.01
    assert all(one == 0.0 or one > 0.01 for one in found)
    seen[name] = [one > 0 for one in found]
    first = "refused" if trained is None else f"{trained:.2f}"
    print(f"{name}: train() {first}; eval() {found[0]:.2f}; eval() and no_grad() {found[1]:.2f}")
recorded.__exit__(None, None, None)
words = {str(one.message) for one in said}
assert all("nested tensors is in prototype" in one for one in words), words
print("warnings, but for one about nested tensors: none")
assert seen == {name: list(case[2:]) for name, case in cases.items()}, "the behaviour has changed"

torch.manual_seed(1)
start = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), 2)
state = {name: value.clone() for name, value in start.state_dict().items()}
net = peft.get_peft_model(nn.Sequential(start), peft.LoraConfig(r=4, lora_alpha=8, target_modules=linears))
wanted = torch.tanh(pictures @ torch.randn(16, 16))
optimizer = torch.optim.AdamW([value for value in net.parameters() if value.requires_grad], 1e-2)


def loss(net, training):
    net.train(training)
    with torch.no_grad():
        return round(float((net(pictures) - wanted).square().mean()), 3)


table = []
for step in range(61):
    if step % 20 == 0:
        table.append((loss(net, True), loss(net, False)))
        print(f"step {step}: loss in train() {table[-1][0]}, in eval() {table[-1][1]}")
    optimizer.zero_grad()
    (net.train()(pictures) - wanted).square().mean().backward()
    optimizer.step()
assert table[-1][0] < table[0][0] / 2, "the behaviour has changed"
assert len({one[1] for one in table}) == 1, "the behaviour has changed"
assert abs(table[0][1] - table[0][0]) < 0.01, "the behaviour has changed"

net.save_pretrained("adapter")
base = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), 2)
base.load_state_dict(state)
loaded = peft.PeftModel.from_pretrained(nn.Sequential(base), "adapter")
mode = "train()" if loaded.training else "eval()"
found = [loss(loaded, loaded.training)]
print(f"from_pretrained, which is in {mode}: {found[0]}")
torch.backends.mha.set_fastpath_enabled(False)
found.append(loss(loaded, False))
torch.backends.mha.set_fastpath_enabled(True)
loaded.merge_adapter()
found.append(loss(loaded, False))
loaded.unmerge_adapter()
found.append(loss(loaded, False))
found.append(loss(loaded.merge_and_unload(), False))
print(f"in eval() with set_fastpath_enabled(False): {found[1]}; after merge_adapter(): {found[2]}; after unmerge_adapter(): {found[3]}")
print(f"in eval() after merge_and_unload(): {found[4]}")
base, learned = table[0][0], loss(net, True)
assert mode == "eval()", "the behaviour has changed"
differences = [abs(one - want) for one, want in zip(found, [base, learned, learned, base, learned], strict=True)]
assert max(differences) < 0.01, "the behaviour has changed"
PYTHON
