"""Black boxes: the ring of the last minutes, and the incidents that are kept of it."""
