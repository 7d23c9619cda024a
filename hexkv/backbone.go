package hexkv

import (
	"math"

	"github.com/hexkv/hexkv/binding"
)

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

	b *binding.Backbone
}

// NewBackbone builds the graph and certifies it over cells. Fails with [ErrInvalidConfig].
// Calls hexkv_backbone_make.
func NewBackbone(kind string, seed uint32, pairs, degree, cells int) (*Backbone, error) {
	const op = "NewBackbone"
	for _, n := range []int{pairs, degree, cells} {
		if n < 0 || n > math.MaxInt32 {
			return nil, errorf(op, CodeConfig, "%d is out of range; use 1 to %d", n, math.MaxInt32)
		}
	}
	b, s := binding.MakeBackbone(kind, seed, int32(pairs), int32(degree), int32(cells))
	if err := statusError(op, s); err != nil {
		return nil, err
	}
	g := &Backbone{Kind: kind, b: b}
	g.Pairs, g.Degree, g.Period, g.Seed, g.Sigma2, g.Ramanujan, g.Factor = b.Fields()
	return g, nil
}

// Cell returns the cell that slot of pair refines, which may lie past the last cell in the last block; -1 for a bad
// argument. Calls hexkv_backbone_cell.
func (b *Backbone) Cell(pair, slot int) int {
	if pair < 0 || slot < 0 || pair > math.MaxInt32 || slot > math.MaxInt32 {
		return -1
	}
	return int(b.b.Cell(int32(pair), int32(slot)))
}
