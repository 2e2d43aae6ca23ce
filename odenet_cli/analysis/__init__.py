"""Analysis of a finished run.

trained             load its network, weights and data
scoring             score it under other solvers (`odenet eval`)
forecast            predict the series of a table (`odenet predict`)
held_out_forecast   predict the test series of generated data (`odenet predict`)
forecast_rows       the table and the text of either forecast
answers             the prediction of a classifier or a regression for each sample (`odenet predict`)
audit               test whether it still is an ODE under finer solvers (`odenet audit`)
gradcheck           compare its gradient with exact ones (`odenet gradcheck`)
doctor              diagnose the solves of a run (`odenet doctor`)
rerun               repeat the step in which it failed (`odenet rerun`)
measures/           the measurements of an experiment on its networks (`odenet reproduce`)
"""
