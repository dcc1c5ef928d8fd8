"""`obslib doctor`: what is set up, what is wrong with it, and what to do about that.

`diagnosis` starts a process that examines (`__main__`, `examination`) and takes its report (`report`); `text` shows it
to people. Each other module knows one kind of trouble.
"""
