"""The processes of a running dataflow: started, watched, stopped, replaced."""
