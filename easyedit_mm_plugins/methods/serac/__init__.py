"""SERAC as a baseline: EasyEdit's own scope code, with the counterfactual model of MSCKE."""
