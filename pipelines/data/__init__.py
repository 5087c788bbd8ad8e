"""From image files to batches: conversion, shards on disk, transforms, reading order."""
