"""SFTP version 3, spoken by the relay itself (draft-ietf-secsh-filexfer-02).

`wire` is the codec, `session` the connection, `operations` what each request means in the office's tree.
"""
