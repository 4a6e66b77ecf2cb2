"""Pretraining as a job: settings, training in one or several processes, probe and contact sheet."""
