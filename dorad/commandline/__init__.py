"""What the command lines of both programs, `dora` and `dorafleet`, are made of."""
