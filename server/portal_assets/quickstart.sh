AT=http://127.0.0.1:8000 JSON='Content-Type: application/json'
value() { python3 -c "import json, sys; print(json.load(sys.stdin)['data']['$1'])"; }
curl -sSw '\n' $AT/api/auth/register/send-code -H "$JSON" -d '{"email": "ada@example.com"}'
CODE=$(cat "$(ls -t data/outbox/*.eml | head -1)" | grep -oE '\b[0-9]{6}\b' | tail -1)
curl -sSw '\n' $AT/api/auth/register -H "$JSON" -d '{"username": "ada", "password": "a long password", "email": "ada@example.com", "verification_code": "'$CODE'"}'
TOKEN=$(curl -sS $AT/api/auth/login -H "$JSON" -d '{"username_or_email": "ada", "password": "a long password"}' | value access_token)
AGENT=$(curl -sS $AT/api/agent/create -H "$JSON" -H "Authorization: Bearer $TOKEN" -d '{"name": "Guide"}' | value agent_id)
curl -sSN $AT/api/web-stream -H "$JSON" -H "Authorization: Bearer $TOKEN" -d '{"agent_id": "'$AGENT'", "session_id": "first", "messages": [{"role": "user", "content": "What is the sun?"}]}'
curl -sSw '\n' $AT/api/conversations -H "Authorization: Bearer $TOKEN"
