"""The model server that endpoints run. Stands alone: imports nothing else of mlstack.

It runs under the *user's* Python (3.10 or newer), started by path (`boot.py`), so these modules import only the
standard library, each other (relatively), and starlette and uvicorn from a private overlay; numpy, pandas, joblib and
scikit-learn are the user's own and are imported only where a model needs them. The contract of a Python model stands in
`python_model.py`.
"""
