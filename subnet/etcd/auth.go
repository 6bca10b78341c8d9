package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"flannel/internal/secret"
)

// token proves to etcd who we are. It is fetched when etcd asks for it, and
// again when etcd has forgotten it.
type token struct {
	user     string
	password secret.String
	text     atomic.Pointer[string]
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t *token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	text := t.text.Load()
	if text == nil {
		return nil, nil
	}
	return map[string]string{rpctypes.TokenFieldNameGRPC: *text}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (t *token) RequireTransportSecurity() bool { return false }

// authenticate fetches a token. An etcd without authentication needs none.
func (m *Manager) authenticate(ctx context.Context) error {
	if m.token == nil {
		return nil
	}
	m.token.text.Store(nil) // a stale one would be refused even here
	auth := pb.NewAuthClient(m.client.ActiveConnection())
	resp, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: m.token.user, Password: m.token.password.Reveal()})
	if err = rpctypes.Error(err); errors.Is(err, rpctypes.ErrAuthNotEnabled) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("authenticate as %s: %w", m.token.user, err)
	}
	m.token.text.Store(&resp.Token)
	return nil
}

// wantsToken reports whether a request was refused for lack of a valid token.
func wantsToken(err error) bool {
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) ||
		errors.Is(err, rpctypes.ErrAuthOldRevision)
}
