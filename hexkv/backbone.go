package hexkv

// Backbone is the static graph that says which cells which (layer, KV head) pairs refine, for tests and tools.
type Backbone struct {
	Kind      string
	Pairs     int     // layers x KV heads
	Degree    int     // pairs that refine one cell
	Period    int     // cells per block; every pair refines one cell of each block
	Seed      uint32  // accepted
	Sigma2    float64 // second singular value of the normalised biadjacency matrix
	Ramanujan float64 // its bound
	Factor    float64 // Sigma2 / Ramanujan
}

// NewBackbone builds the graph and certifies it over cells. Fails with [ErrInvalidConfig].
// Calls hexkv_backbone_make.
func NewBackbone(kind string, seed uint32, pairs, degree, cells int) (*Backbone, error) {
	panic("unimplemented")
}

// Cell returns the cell that slot of pair refines, which may lie past the last cell in the last block; -1 for a bad
// argument. Calls hexkv_backbone_cell.
func (b *Backbone) Cell(pair, slot int) int { panic("unimplemented") }
