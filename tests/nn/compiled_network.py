"""Run by test_inference: a tiny denoiser as it is and compiled; prints the difference and the number of graphs."""

import json

import torch
from torch._dynamo.utils import counters
from torch._inductor import config

from latent3d.denoisers.plane_dit import PlaneDiTConfig
from latent3d.nn.inference import compile_network

config.compile_threads = 1  # no pool of workers for one small graph
config.cpp_cache_precompile_headers = False  # takes longer than the graph
torch.manual_seed(0)
torch.set_num_threads(1)
network = PlaneDiTConfig.tiny().build().eval().requires_grad_(False)
for parameter in network.parameters():
    parameter.normal_(std=0.1)
inputs = torch.randn(2, 3, 4, 4, 4), torch.tensor(0.4)
expected = network(*inputs)
compile_network(network)
difference = float((network(*inputs) - expected).norm() / expected.norm())
print(json.dumps({"difference": difference, "graphs": counters["stats"]["unique_graphs"]}))
