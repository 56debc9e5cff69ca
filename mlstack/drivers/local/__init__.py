"""Stages and endpoints as processes of this machine."""
