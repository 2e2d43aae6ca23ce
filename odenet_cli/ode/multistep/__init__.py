"""Adams methods: formulas on a Nordsieck array, and the loop that chooses step and order."""
