"""The provider for Vertex AI: batch prediction jobs, with input and output in Cloud Storage or BigQuery.

`provider` has the class, `storage` the objects of Cloud Storage, `tables` the tables of BigQuery.
"""
