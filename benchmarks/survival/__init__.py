"""Do sessions survive? Nodes and their p2pds are killed or stopped from outside, at steps chosen before the run."""
