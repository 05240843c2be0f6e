"""The gates: asset checks, blocking where a number made in spite of them would mislead. What they test is in science.

A blocking check holds back what is downstream in the same run; across runs the automation condition and the chain see to it.
"""
